//! A containerd of our own. Invariant: containers outlive both it and us.
