//! What a verdict is worth: changed bundles, golden vectors, attribution, whole trees.

#[cfg(test)]
mod verify {
    mod agents;
    mod attribution;
    mod authn;
    mod bundles;
    mod forge;
    mod links;
    mod logins;
    mod mtls;
    mod refusals;
    mod scenes;
    mod trees;
    mod vectors;
    mod vouchers;
    mod whole;
    mod witnesses;
}
