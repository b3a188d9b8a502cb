//! Topic names and topic filters (MQTT 3.1.1 section 4.7).

/// What is wrong with a topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// It has no character.
    #[error("topic is empty [MQTT-4.7.3-1]")]
    Empty,
    /// It contains U+0000.
    #[error("topic contains U+0000 [MQTT-4.7.3-2]")]
    Nul,
    /// It is longer than 65,535 bytes.
    #[error("topic is longer than 65535 bytes [MQTT-4.7.3-3]")]
    TooLong,
    /// A topic name contains `+` or `#`.
    #[error("topic name contains a wildcard [MQTT-4.7.1-1]")]
    WildcardInName,
    /// `#` is not the last level, or not alone in it.
    #[error("`#` is not the whole last level of a filter [MQTT-4.7.1-2]")]
    MultiLevel,
    /// `+` shares its level with other characters.
    #[error("`+` is not a whole level of a filter [MQTT-4.7.1-3]")]
    SingleLevel,
}

/// Checks a topic name: what a PUBLISH carries.
///
/// # Errors
/// The first rule of section 4.7 it breaks.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    check_extent(name)?;
    // One pass without an early way out: the compiler turns it into vector instructions, and a
    // broker checks a name for each message.
    let special = name.bytes().fold(false, |found, byte| found | (byte == 0) | (byte == b'+') | (byte == b'#'));
    if !special {
        return Ok(());
    }
    Err(if name.as_bytes().contains(&0) { TopicError::Nul } else { TopicError::WildcardInName })
}

/// Checks a topic filter: what SUBSCRIBE and UNSUBSCRIBE carry.
///
/// # Errors
/// The first rule of section 4.7 it breaks.
pub fn check_filter(filter: &str) -> Result<(), TopicError> {
    check_extent(filter)?;
    if filter.as_bytes().contains(&0) {
        return Err(TopicError::Nul);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::MultiLevel);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevel);
        }
    }
    Ok(())
}

/// True for a topic name that a PUBLISH may carry.
pub fn valid_name(name: &str) -> bool {
    check_name(name).is_ok()
}

/// True for a topic filter that a SUBSCRIBE may carry.
pub fn valid_filter(filter: &str) -> bool {
    check_filter(filter).is_ok()
}

/// True when a message on `name` belongs to a subscription of `filter`. Both are taken to be
/// valid; a name that starts with `$` is not reached by a filter that starts with a wildcard
/// ([MQTT-4.7.2-1]).
pub fn filter_matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut wanted = filter.split('/');
    let mut levels = name.split('/');
    loop {
        match (wanted.next(), levels.next()) {
            // `#` also stands for the parent itself, so it matches with no level left.
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(given)) if level == given => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

fn check_extent(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        Err(TopicError::Empty)
    } else if topic.len() > usize::from(u16::MAX) {
        Err(TopicError::TooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_4_7_1_1_a_name_has_no_wildcard() {
        for name in ["+", "#", "a/+/b", "a+", "a/#"] {
            assert_eq!(check_name(name), Err(TopicError::WildcardInName));
        }
        for name in ["a", "/", "a/b", " ", "a b", "$SYS/x", "å/漢"] {
            assert!(valid_name(name) && valid_filter(name), "{name:?}");
        }
    }

    #[test]
    fn mqtt_4_7_1_2_hash_is_the_whole_last_level() {
        for filter in ["#", "/#", "sport/tennis/#", "+/#"] {
            assert!(valid_filter(filter), "{filter:?}");
        }
        for filter in ["sport/tennis#", "sport/tennis/#/ranking", "#/", "##", "/#a"] {
            assert_eq!(check_filter(filter), Err(TopicError::MultiLevel));
        }
    }

    #[test]
    fn mqtt_4_7_1_3_plus_is_a_whole_level() {
        for filter in ["+", "+/tennis/#", "sport/+/player1", "/+", "+/+"] {
            assert!(valid_filter(filter), "{filter:?}");
        }
        for filter in ["sport+", "+a", "a/b+/c", "++"] {
            assert_eq!(check_filter(filter), Err(TopicError::SingleLevel));
        }
    }

    #[test]
    fn mqtt_4_7_3_extent_and_nul() {
        assert_eq!(check_name(""), Err(TopicError::Empty));
        assert_eq!(check_filter(""), Err(TopicError::Empty));
        assert_eq!(check_name("a\0"), Err(TopicError::Nul));
        assert_eq!(check_filter("a\0"), Err(TopicError::Nul));
        let longest = "a".repeat(65_535);
        assert!(valid_name(&longest) && valid_filter(&longest));
        let longer = "a".repeat(65_536);
        assert_eq!(check_name(&longer), Err(TopicError::TooLong));
        assert_eq!(check_filter(&longer), Err(TopicError::TooLong));
    }

    #[track_caller]
    fn check(filter: &str, matched: &[&str], missed: &[&str]) {
        for name in matched {
            assert!(filter_matches(filter, name), "{filter} reaches {name}");
        }
        for name in missed {
            assert!(!filter_matches(filter, name), "{filter} misses {name}");
        }
    }

    #[test]
    fn mqtt_4_7_1_2_examples() {
        check(
            "sport/tennis/player1/#",
            &["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"],
            &["sport/tennis", "sport/tennis/player10", "sport/tennis/player2/x"],
        );
        check("sport/#", &["sport", "sport/", "sport/a/b"], &["sports"]);
        check("#", &["a", "/", "a/b/c", "/a"], &[]);
    }

    #[test]
    fn mqtt_4_7_1_3_examples() {
        check(
            "sport/tennis/+",
            &["sport/tennis/player1", "sport/tennis/"],
            &["sport/tennis/player1/ranking", "sport/tennis"],
        );
        check("sport/+", &["sport/"], &["sport", "sport/a/b"]);
        check("+/+", &["/finance", "a/b"], &["a", "a/b/c"]);
        check("/+", &["/finance"], &["finance"]);
        check("+", &["finance"], &["/finance"]);
        check("+/#", &["a", "a/b", "/b/c"], &[]);
        check("a/+/#", &["a/b", "a/b/c", "a/"], &["a"]);
    }

    #[test]
    fn mqtt_4_7_2_1_a_leading_wildcard_does_not_reach_dollar_topics() {
        check("#", &[], &["$SYS", "$SYS/monitor/Clients"]);
        check("+/monitor/Clients", &[], &["$SYS/monitor/Clients"]);
        check("+", &[], &["$SYS"]);
        check("$SYS/#", &["$SYS", "$SYS/monitor/Clients"], &["SYS/x"]);
        check("$SYS/monitor/+", &["$SYS/monitor/Clients"], &[]);
        check("a/+", &["a/$b"], &[]);
    }

    #[test]
    fn mqtt_4_7_3_4_levels_are_compared_byte_by_byte() {
        check("ACCOUNTS", &["ACCOUNTS"], &["Accounts", "/ACCOUNTS", "ACCOUNTS/"]);
        check("a//b", &["a//b"], &["a/b", "a/x/b"]);
        // One letter in two normal forms.
        check("\u{e5}", &["\u{e5}"], &["a\u{30a}"]);
    }
}
