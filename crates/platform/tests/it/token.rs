//! Whose token it is.

use vestibule_platform::Permission;

use crate::bed::Bed;

#[tokio::test]
async fn the_token_of_the_data_directory_may_do_everything_and_nothing_else_anything() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = vestibule_platform::TokenFile::open(&dir.path().join("token")).expect("made");
    let bed = Bed::new().await;
    assert!(bed.platform.authorize(file.reveal()).is_none(), "the token of another directory");
    let own = bed.token();
    let caller = bed.platform.authorize(&own).expect("known");
    assert!(Permission::ALL.iter().all(|permission| caller.may(*permission)));
    for wrong in ["", &own[1..], &own.to_uppercase(), &format!("{own}0"), &format!("{own}\n"), &"0".repeat(own.len())] {
        assert!(bed.platform.authorize(wrong).is_none(), "{wrong:?}");
    }
    let bed = bed.restart().await;
    assert!(bed.platform.authorize(&own).is_some(), "it is made once");
}
