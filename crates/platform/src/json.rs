//! What has to be known of what callers give: how deep a JSON text is, whether a path names a part of a device.

use vestibule_store::DevicePath;

const MAX_NAME: usize = 128;

/// What is wrong with a path: which level, and how.
pub(crate) fn path_error(path: &DevicePath) -> Option<(&'static str, &'static str)> {
    let DevicePath { resource, index, area, name } = path;
    [("resource", resource), ("index", index), ("area", area), ("name", name)].into_iter().find_map(|(field, level)| {
        if level.is_empty() || level.len() > MAX_NAME {
            return Some((field, "must have 1 to 128 bytes"));
        }
        level.chars().any(char::is_control).then_some((field, "must not contain control characters"))
    })
}

/// How deeply arrays and objects are nested in a JSON text.
pub(crate) fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for &byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_nesting_and_not_brackets_in_strings() {
        assert_eq!(depth(b"3"), 0);
        assert_eq!(depth(br#"{"a":[1,{"b":2}]}"#), 3);
        assert_eq!(depth(br#"{"a":"[[[[\"[[["}"#), 1);
        assert_eq!(depth(&[b'['; 100]), 100);
    }
}
