use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    serial: String,
    seconds: Option<u64>,
}

fn problem(text: &str) -> String {
    let problem = from_json::<Sample>(text.as_bytes()).expect_err("refused");
    String::from_utf8(problem.to_json()).expect("text")
}

#[test]
fn good_fields_are_read() {
    let sample: Sample = from_json(br#"{"seconds":5,"serial":"A"}"#).expect("read");
    assert_eq!(sample, Sample { serial: "A".into(), seconds: Some(5) });
    let sample: Sample = from_json(br#"{"seconds":null,"serial":"A"}"#).expect("read");
    assert_eq!(sample.seconds, None);
    let sample: Sample = from_query(vec![("serial".into(), "5".into()), ("seconds".into(), "7".into())]).expect("read");
    assert_eq!(sample, Sample { serial: "5".into(), seconds: Some(7) });
}

#[test]
fn each_mistake_is_named() {
    for (text, kind, field) in [
        (r#"{"serial":"A","colour":1}"#, "unknown-field", Some("colour")),
        (r#"{}"#, "missing-field", Some("serial")),
        (r#"{"serial":"A","serial":"B"}"#, "duplicate-field", Some("serial")),
        (r#"{"serial":7}"#, "wrong-type", Some("serial")),
        (r#"{"serial":null}"#, "wrong-type", Some("serial")),
        (r#"{"serial":"A","seconds":"7"}"#, "wrong-type", Some("seconds")),
        (r#"{"serial":"A","seconds":-7}"#, "wrong-type", Some("seconds")),
        (r#"{"serial":"A","seconds":7.5}"#, "wrong-type", Some("seconds")),
        (r#"{"serial":"A""#, "malformed-json", None),
        (r#"["A"]"#, "wrong-type", None),
        ("", "malformed-json", None),
    ] {
        let problem: Value = serde_json::from_str(&problem(text)).expect("JSON");
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{text}");
        assert_eq!(problem.get("field").and_then(Value::as_str), field, "{text}");
    }
}

#[test]
fn mistakes_inside_an_object_are_named_as_well() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(rename = "inner")]
        _inner: Option<Sample>,
    }
    for (text, field) in [
        (r#"{"inner":{"serial":"A"}}"#, None),
        (r#"{"inner":null}"#, None),
        (r#"{"inner":7}"#, Some("inner")),
        (r#"{"inner":{"serial":7}}"#, Some("serial")),
        (r#"{"inner":{"serial":"A","seconds":"7"}}"#, Some("seconds")),
        (r#"{"inner":{}}"#, Some("serial")),
        (r#"{"inner":{"colour":1}}"#, Some("colour")),
    ] {
        let problem = from_json::<Outer>(text.as_bytes()).err().map(|problem| problem.to_json());
        let problem: Option<Value> = problem.map(|json| serde_json::from_slice(&json).expect("JSON"));
        assert_eq!(problem.as_ref().and_then(|problem| problem["field"].as_str()), field, "{text}");
    }
}

#[test]
fn a_value_is_never_told_back() {
    for text in [r#"{"serial":987654321}"#, r#"{"serial":["987654321"]}"#, r#""987654321""#, r#"{"serial":987654321"#] {
        assert!(!problem(text).contains("987654321"), "{text}");
    }
}
