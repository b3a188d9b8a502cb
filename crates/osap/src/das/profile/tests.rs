use proptest::prelude::*;
use serde_json::{Number, json};

use super::*;

/// Every key of the table once.
fn document() -> Value {
    json!({
        "version": "V1.0.0 build 200101",
        "capacities": {"battery": true, "list": [1, {"deep": null}]},
        "resources": [{
            "identifier": "Lamp",
            "resourceCategory": "Lamp",
            "localIndex": ["0", "1"],
            "dynamic": true,
            "global": false,
            "domains": [{
                "identifier": "Light",
                "props": [
                    {"identifier": "Power", "access": "rw", "version": "1", "schema": {"type": "bool"}},
                    {"identifier": "Level", "access": "r", "schema":
                        {"type": "int", "mn": -5, "mx": 100, "emn": -6, "emx": 101, "multi": 5, "enum": [0, 5, 100]}},
                    {"identifier": "Hue", "access": "w", "schema":
                        {"type": "num", "mn": 0.5, "mx": 1, "emn": 0.25, "emx": 1.5, "multi": 0.25, "enum": [0.5, 1]}},
                    {"identifier": "Mode", "access": "rw", "schema":
                        {"type": "str", "mnl": 0, "mxl": 8, "enum": ["day", "night"]}},
                    {"identifier": "Scenes", "access": "rw", "schema": {"type": "arr", "itm":
                        {"type": "arr", "itm": {"type": "str"}}, "mnitm": 1, "mxitm": 9, "unq": true}},
                    {"identifier": "Tree", "access": "r"},
                ],
                "actions": [{
                    "identifier": "Blink",
                    "direction": "Plt2Dev",
                    "version": "2",
                    "input": {"schema": {"type": "obj",
                        "prop": [{"key": "count", "type": "int"}, {"key": "pause", "type": "obj", "prop": []}],
                        "req": ["count"], "mnp": 1, "mxp": 2, "dep": {"pause": ["count"]}}},
                    "output": {"schema": {"type": "bool"}},
                }, {"identifier": "Ask", "direction": "Dev2Plt", "input": {}}],
                "events": [{
                    "identifier": "Fault",
                    "eventType": ["general", "notification"],
                    "version": "3",
                    "input": {"schema": {"type": "str"}},
                    "output": {"schema": {"type": "str"}},
                }],
            }],
        }],
    })
}

fn parse(value: &Value) -> Result<Profile, ProfileError> {
    Profile::parse(value.to_string().as_bytes())
}

/// The document with one place of it changed.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = document();
    *document.pointer_mut(pointer).expect("a place of the document") = value;
    document
}

#[test]
fn every_key_is_read_and_written_again() {
    let profile = parse(&document()).expect("a profile");
    let written = profile.write().expect("it was read");
    assert_eq!(serde_json::from_slice::<Value>(&written).expect("JSON"), document());
    assert_eq!(Profile::parse(&written), Ok(profile.clone()));
    let domain = &profile.resources[0].domains[0];
    let Some(Schema { kind: Kind::Int(Range { min, one_of, .. }), .. }) = &domain.props[1].schema else {
        panic!("an integer")
    };
    assert_eq!((min, one_of.as_ref().map(Vec::len)), (&Some((-5).into()), Some(3)));
    assert!(domain.props[0].access.is_writable() && !domain.props[1].access.is_writable());
    assert!(domain.props[1].access.is_readable() && !domain.props[2].access.is_readable());
    assert_eq!(domain.actions[1].direction, Direction::ToPlatform);
    assert_eq!(domain.actions[1].input, Some(Payload::default()));
}

#[test]
fn what_may_be_left_out_may_be_left_out() {
    let tree = json!({"version": "", "resources": [{"identifier": "r", "resourceCategory": "c", "new": 1}]});
    let profile = parse(&tree).expect("a profile");
    assert!(profile.resources[0].domains.is_empty() && !profile.resources[0].global);
    assert!(parse(&json!({"version": "1"})).expect("a profile").resources.is_empty());
}

#[test]
fn what_is_wrong_is_named() {
    let reason = |value: &Value| match parse(value) {
        Err(ProfileError::Malformed { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let schema = "/resources/0/domains/0/props/1/schema";
    assert!(reason(&with(schema, json!({"type": "float"}))).contains("unknown type \"float\""));
    assert!(reason(&with(schema, json!({"type": "int", "enum": [1.5]}))).contains("not of type int"));
    assert!(reason(&with(schema, json!({"type": "str", "enum": [1]}))).contains("not of type str"));
    assert!(reason(&with(schema, json!({"type": "num", "enum": ["1"]}))).contains("not of type num"));
    assert!(reason(&with(schema, json!({"type": "obj", "prop": [{"type": "int"}]}))).contains("no key"));
    assert!(reason(&with(schema, json!({"type": "arr", "mnitm": -1}))).contains("-1"));
    assert!(reason(&with("/resources/0/domains/0/props/0/access", json!("x"))).contains("rw"));
    assert!(reason(&with("/resources/0/identifier", json!(5))).contains("string"));
    let Err(ProfileError::Malformed { line, column, reason }) = Profile::parse(b"{\n \"version\": 5}") else {
        panic!("refused")
    };
    assert_eq!((line, column), (2, 13));
    assert!(!reason.contains("line"), "{reason}");
    assert!(matches!(Profile::parse(b"{\n\"\xff"), Err(ProfileError::Malformed { line: 2, .. })));
}

#[test]
fn names_fit_into_topics_and_devices() {
    for (pointer, max) in [
        ("/version", 35),
        ("/resources/0/identifier", 31),
        ("/resources/0/resourceCategory", 31),
        ("/resources/0/localIndex/0", 7),
        ("/resources/0/domains/0/identifier", 31),
        ("/resources/0/domains/0/props/0/identifier", 31),
        ("/resources/0/domains/0/actions/0/identifier", 31),
        ("/resources/0/domains/0/events/0/identifier", 31),
        ("/resources/0/domains/0/props/3/schema/enum/0", 31),
        ("/resources/0/domains/0/actions/0/input/schema/prop/0/key", 128),
    ] {
        assert!(parse(&with(pointer, "x".repeat(max).into())).is_ok(), "{pointer}");
        let long = parse(&with(pointer, "x".repeat(max + 1).into()));
        assert!(matches!(long, Err(ProfileError::Name { max: told, .. }) if told == max), "{pointer}");
    }
    for wrong in ["", "a/b", "a+", "#", "a\u{1}"] {
        for pointer in ["/resources/0/identifier", "/resources/0/domains/0/identifier", "/resources/0/localIndex/1"] {
            assert!(parse(&with(pointer, wrong.into())).is_err(), "{pointer} {wrong:?}");
        }
    }
    assert!(parse(&with("/resources/0/localIndex/0", "a-b".into())).is_err());
}

#[test]
fn size_and_depth_are_bounded() {
    let nested = |depth: usize| {
        let mut schema = json!({"type": "bool"});
        for _ in 1..depth {
            schema = json!({"type": "arr", "itm": schema});
        }
        with("/resources/0/domains/0/props/0/schema", schema)
    };
    // The document itself, its resource, domain and attribute take seven levels.
    assert!(parse(&nested(25)).is_ok());
    assert_eq!(parse(&nested(26)), Err(ProfileError::TooDeep));
    assert_eq!(Profile::parse(&vec![b' '; MAX_LEN + 1]), Err(ProfileError::TooLong));
    let mut profile = parse(&document()).expect("a profile");
    let text = "x".repeat(MAX_LEN);
    profile.capacities.get_or_insert_default().insert("long".to_owned(), text.into());
    assert_eq!(profile.write(), Err(ProfileError::TooLong));
}

fn schema() -> impl Strategy<Value = Schema> {
    let number = || proptest::option::of(any::<i64>().prop_map(Number::from));
    let range = (number(), number(), proptest::option::of(proptest::collection::vec(any::<i32>(), 0..3)));
    let range = range.prop_map(|(min, below, one_of)| Range {
        min,
        below,
        one_of: one_of.map(|values| values.into_iter().map(Number::from).collect()),
        ..Range::default()
    });
    let text = (any::<Option<u64>>(), proptest::option::of(proptest::collection::vec(".{0,7}", 0..3)));
    let leaf = prop_oneof![
        Just(Kind::Bool),
        range.clone().prop_map(Kind::Int),
        range.prop_map(Kind::Num),
        text.prop_map(|(max_len, one_of)| Kind::Str { min_len: None, max_len, one_of }),
    ];
    let kind = leaf.prop_recursive(4, 24, 4, |inner| {
        let item = proptest::option::of(inner.clone().prop_map(|kind| Box::new(Schema { key: None, kind })));
        let members = proptest::collection::vec(("[a-z]{1,9}", inner), 0..4);
        prop_oneof![
            (item, any::<Option<u64>>(), any::<bool>()).prop_map(|(item, max_items, unique)| Kind::Arr {
                item,
                min_items: None,
                max_items,
                unique,
            }),
            (members, any::<Option<u64>>()).prop_map(|(members, min_members)| Kind::Obj(Members {
                required: members.iter().map(|(key, _)| key.clone()).collect(),
                dependencies: members.iter().map(|(key, _)| (key.clone(), vec![key.clone()])).collect(),
                members: members.into_iter().map(|(key, kind)| Schema { key: Some(key), kind }).collect(),
                min_members,
                max_members: None,
            })),
        ]
    });
    kind.prop_map(|kind| Schema { key: None, kind })
}

proptest! {
    #[test]
    fn every_schema_survives_the_way(schema in schema()) {
        let mut profile = parse(&document()).expect("a profile");
        profile.resources[0].domains[0].props[0].schema = Some(schema);
        let written = profile.write().expect("within the limits");
        prop_assert_eq!(Profile::parse(&written), Ok(profile));
    }
}
