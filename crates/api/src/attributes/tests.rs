use super::*;

#[test]
fn a_version_is_expected_by_its_tag() {
    let read = |tags: &[&'static str]| {
        let tags = tags.iter().map(|tag| (header::IF_MATCH, tag.parse().expect("a value")));
        if_match(&tags.collect()).map_err(|problem| problem.kind)
    };
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&["*"]), Ok(None));
    assert_eq!(read(&["\"7\""]), Ok(Some(7)));
    for wrong in [&["7"][..], &["W/\"7\""], &["\"7\", \"8\""], &["\"x\""], &["\"7\"", "\"7\""], &[""]] {
        assert_eq!(read(wrong), Err(Kind::InvalidValue), "{wrong:?}");
    }
}

#[test]
fn a_cursor_holds_any_path() {
    let path = DevicePath { resource: "a\"b".into(), index: "/".into(), area: "ä,".into(), name: "]".into() };
    assert_eq!(read_cursor(&write_cursor(&path)).ok(), Some(path));
    assert!(read_cursor("[1,2,3,4]").is_err() && read_cursor("x").is_err());
}
