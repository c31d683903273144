//! A demo with a provider of identities, and what its tokens stand for. People's provider is `idp`, the
//! workload is `deploy-shop`; the operator is linked and answers for it.

use super::world::World;

/// A provider to be registered.
pub(super) struct Provider<'a> {
    pub(super) name: &'a str,
    pub(super) kind: &'a str,
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    /// Where its keys are, if it does not say so itself.
    pub(super) jwks: Option<&'a str>,
}

impl World {
    pub(super) fn add_provider(&self, provider: &Provider<'_>) {
        let mut add = vec!["provider", "add", provider.name, "--kind", provider.kind];
        add.extend(["--issuer", provider.issuer, "--audience", provider.audience]);
        add.extend(provider.jwks.into_iter().flat_map(|jwks| ["--jwks", jwks]));
        self.run_as("approver", &add).exits(0);
    }

    /// The operator is whom `idp` calls by that subject.
    pub(super) fn link_operator(&self, subject: &str) {
        let operator = self.person("operator").0;
        let mut link = vec!["identity", "link", operator.as_str()];
        link.extend(["--provider", "idp", "--subject", subject]);
        self.run_as("approver", &link).exits(0);
    }

    /// A workload by these conditions.
    pub(super) fn add_workload(&self, provider: &str, when: &[&str]) {
        let operator = self.person("operator").0;
        let mut rule = vec!["workload", "add", "deploy-shop", "--provider", provider];
        rule.extend(["--owner", operator.as_str()]);
        rule.extend(when.iter().flat_map(|when| ["--when", *when]));
        self.run_as("approver", &rule).exits(0);
    }

    /// A grant for it, that its owner asked for.
    pub(super) fn grant_workload(&self) {
        let place = self.place();
        let mut ask = vec!["request", place.as_str(), "--workload", "deploy-shop"];
        ask.extend(["--for", "30m", "--why", "roll out the release of the shop"]);
        ask.extend(["--ticket", "demo:OPS-77", "--reusable"]);
        let asked = self.run_as("operator", &ask).exits(0).line();
        self.approve(asked["request_id"].as_str().unwrap());
    }
}
