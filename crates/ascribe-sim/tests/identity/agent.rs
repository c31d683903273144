//! An `ssh-agent` of a test's own, and what runs with it.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use super::world::{Out, PATIENCE, Running, World, need, wait_for};

/// An agent of its own, ended with the test.
pub(super) struct Agent {
    _process: Running,
    socket: PathBuf,
}

impl Agent {
    pub(super) fn start(world: &World) -> Self {
        let socket = world.path("agent");
        let mut command = Command::new(need("ssh-agent"));
        command.arg("-D").arg("-a").arg(&socket);
        let process = Running::start(command, &world.path("logs"), true);
        wait_for("agent", PATIENCE, || UnixStream::connect(&socket).ok());
        Self {
            _process: process,
            socket,
        }
    }

    /// The binary, with this agent and no key file.
    pub(super) fn command(&self, world: &World, args: &[&str]) -> Command {
        let mut command = world.ascribe(args);
        command.env("SSH_AUTH_SOCK", &self.socket);
        command
    }

    /// Another program, with this agent and at home here.
    pub(super) fn beside(&self, world: &World, program: PathBuf) -> Command {
        let ours = self.command(world, &[]);
        let mut command = Command::new(program);
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    pub(super) fn run(&self, world: &World, args: &[&str]) -> Out {
        world.program_as_is(&mut self.command(world, args))
    }

    /// Stock ssh with the agent's keys alone.
    pub(super) fn ssh(&self, world: &World, command: &str) -> Out {
        world.ssh_with(&self.options(), &world.place(), command)
    }

    pub(super) fn options(&self) -> Vec<&str> {
        let socket = self.socket.to_str().unwrap();
        let fixed = "-F none -oHostName=127.0.0.1 -oStrictHostKeyChecking=no -oBatchMode=yes \
                     -oUserKnownHostsFile=/dev/null -oIdentityFile=none";
        let mut options: Vec<&str> = fixed.split(' ').collect();
        let agent = Box::leak(format!("-oIdentityAgent={socket}").into_boxed_str());
        options.push(agent);
        options
    }
}
