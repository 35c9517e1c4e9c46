//! One suite holds every engine to the same behaviour; what only one engine has is tested beside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where its ground is missing"
)]

mod behaviour;
mod embedded;
mod etcd;
mod follow;
mod kill;
mod model;
mod property;
mod support;

/// Makes a test of every behaviour with the engines that `$open` gives. What it gives beside the engine is kept
/// until the test ends.
macro_rules! conformance {
    ($engine:ident, $open:path) => {
        mod $engine {
            crate::conformance!(@each $open;
                behaviour: create_conflicts_with_an_existing_key,
                behaviour: update_and_delete_need_the_key_as_it_was_read,
                behaviour: a_key_made_anew_is_not_the_one_that_was_read,
                behaviour: guards_hold_what_a_decision_relied_on,
                behaviour: a_prefix_guard_sees_what_is_new_and_not_what_is_gone,
                behaviour: prefixes_end_where_they_end,
                behaviour: a_refused_commit_leaves_no_trace,
                behaviour: a_conflict_names_a_key_and_a_version_that_shows_it,
                behaviour: a_commit_writes_each_key_once,
                behaviour: keys_that_no_engine_keeps_are_refused,
                behaviour: a_commit_without_writes_is_a_version,
                behaviour: racing_writers_lose_no_update,
                behaviour: racing_creators_have_one_winner,
                behaviour: changes_are_complete_and_in_order,
                behaviour: changes_of_one_commit_arrive_together,
                behaviour: every_follower_sees_the_same,
                behaviour: compacted_changes_are_refused,
                behaviour: a_load_is_of_one_version_and_one_prefix,
                behaviour: large_loads_are_complete,
                behaviour: values_are_kept_byte_for_byte,
                behaviour: reset_deletes_everything_and_followers_see_it,
                behaviour: reset_of_an_empty_store_is_seen,
                model: random_commits_do_what_the_model_does,
                follow: a_committer_sees_its_commit_in_the_next_snapshot,
                follow: a_snapshot_is_never_between_two_commits,
                follow: a_store_that_is_reset_is_empty,
                follow: racing_stores_converge,
            );
        }
    };
    (@each $open:path; $($module:ident: $name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::support::in_time(async {
                    let (engine, _kept) = $open().await;
                    crate::$module::$name(engine).await;
                })
                .await;
            }
        )*
    };
}
pub(crate) use conformance;

conformance!(in_memory, crate::support::memory);
conformance!(on_disk, crate::support::embedded);
conformance!(on_etcd, crate::support::etcd);
