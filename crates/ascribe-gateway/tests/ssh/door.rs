//! The ledger as the gateway sees it here: the real one, that can be made to wait.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ascribe_core::entry::{Body, Certificate};
use ascribe_core::id::{PersonId, SessionId, StatementId};
use ascribe_core::law::Denied;
use ascribe_core::record::{
    Admission, AgentLogin, BoxFuture, Proposal, Receipt, RecordError, Recorder, ShownCertificate,
    SignedOpening, Standing, Wanted,
};
use ascribe_core::statement::Target;
use ascribe_core::time::Timestamp;
use ascribe_ledger::Ledger;

/// Which entries do not get through.
pub(super) type Stops = fn(&Body) -> bool;

/// The real ledger, behind a door that a test can close: what it stops waits until the door opens.
pub(super) struct Door {
    pub(super) ledger: Arc<Ledger>,
    stops: tokio::sync::watch::Sender<Option<Stops>>,
    waiting: Mutex<Vec<Body>>,
    /// Those that wait get through in their order.
    turn: Arc<tokio::sync::Mutex<()>>,
    marker: PathBuf,
    early: Arc<AtomicBool>,
}

impl Door {
    /// `marker` is what commands may make that must not run early.
    pub(super) fn new(ledger: Arc<Ledger>, marker: PathBuf) -> Self {
        Self {
            ledger,
            stops: tokio::sync::watch::Sender::new(None),
            waiting: Mutex::default(),
            turn: Arc::default(),
            marker,
            early: Arc::default(),
        }
    }
    /// Entries of these kinds now wait.
    pub(super) fn close(&self, stops: Stops) {
        self.stops.send_replace(Some(stops));
    }
    pub(super) fn open(&self) {
        self.stops.send_replace(None);
    }
    /// What had to wait so far.
    pub(super) fn waiting(&self) -> Vec<Body> {
        self.waiting.lock().unwrap().clone()
    }
    /// Did a command make the marker before its intent was durable and acknowledged?
    pub(super) fn ran_early(&self) -> bool {
        self.early.load(Ordering::SeqCst)
    }
}

impl Recorder for Door {
    fn record(&self, proposal: Proposal) -> BoxFuture<'_, Result<Receipt, RecordError>> {
        let mut stops = self.stops.subscribe();
        let stopped = stops.borrow().is_some_and(|stops| stops(&proposal.body));
        let turn = stopped.then(|| Arc::clone(&self.turn).lock_owned());
        if stopped {
            self.waiting.lock().unwrap().push(proposal.body.clone());
        }
        let (ledger, early) = (Arc::clone(&self.ledger), Arc::clone(&self.early));
        let marker = self.marker.clone();
        // What is proposed stays proposed, whoever still waits for it.
        let proposed = tokio::spawn(async move {
            let is_intent = matches!(proposal.body, Body::Intent(_));
            let open = |stops: &Option<Stops>| !stops.is_some_and(|stops| stops(&proposal.body));
            let _turn = match turn {
                Some(turn) => Some(turn.await),
                None => None,
            };
            stops.wait_for(open).await.map(drop).unwrap();
            let receipt = ledger.record(proposal).await;
            if is_intent && marker.exists() {
                early.store(true, Ordering::SeqCst);
            }
            receipt
        });
        Box::pin(async move { proposed.await.unwrap() })
    }
    fn record_all(
        &self,
        proposals: Vec<Proposal>,
    ) -> BoxFuture<'_, Vec<Result<Receipt, RecordError>>> {
        Box::pin(async move {
            let mut answers = Vec::new();
            for proposal in proposals {
                answers.push(self.record(proposal).await);
            }
            answers
        })
    }
    fn settle_all(&self, proposals: Vec<Proposal>) -> BoxFuture<'_, Result<(), RecordError>> {
        Box::pin(async move {
            for proposal in proposals {
                self.record(proposal).await?;
            }
            Ok(())
        })
    }
    fn person_by_key(&self, fingerprint: &str) -> Option<PersonId> {
        self.ledger.person_by_key(fingerprint)
    }
    fn login_by_key(&self, fingerprint: &str) -> Option<(StatementId, Timestamp)> {
        self.ledger.login_by_key(fingerprint)
    }
    fn agent_by_key(&self, fingerprint: &str) -> Option<AgentLogin> {
        self.ledger.agent_by_key(fingerprint)
    }
    fn ca_keys(&self) -> Vec<String> {
        self.ledger.ca_keys()
    }
    fn person_by_certificate(
        &self,
        shown: &ShownCertificate,
    ) -> Result<(PersonId, Certificate), Denied> {
        self.ledger.person_by_certificate(shown)
    }
    fn admit(&self, wanted: &Wanted<'_>) -> Admission {
        self.ledger.admit(wanted)
    }
    fn standing(&self, session: SessionId) -> Standing {
        self.ledger.standing(session)
    }
    fn signed_opening(&self, statement: StatementId) -> Option<SignedOpening> {
        self.ledger.signed_opening(statement)
    }
    fn target(&self, name: &str) -> Option<Target> {
        self.ledger.target(name)
    }
    fn watchers(&self, session: SessionId) -> Vec<String> {
        self.ledger.watchers(session)
    }
    fn now(&self) -> Timestamp {
        self.ledger.now()
    }
}
