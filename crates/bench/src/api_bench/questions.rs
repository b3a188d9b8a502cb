//! The lists that are asked for.

/// One of them.
#[derive(Debug)]
pub struct Question {
    /// What it is called.
    pub name: &'static str,
    /// Its parameters.
    pub query: &'static str,
    /// Whether there is such a device.
    pub finds: bool,
}

const fn finds(name: &'static str, query: &'static str) -> Question {
    Question { name, query, finds: true }
}

/// All devices of the measurement are registered and none was there.
pub const QUESTIONS: [Question; 14] = [
    finds("all, as registered", ""),
    finds("all, by serial", "order=serial"),
    finds("all, by name, from the end", "order=-name"),
    finds("never seen, by when seen", "presence=never_seen&order=seen"),
    Question { name: "online", query: "presence=online", finds: false },
    finds("a product (1 in 100)", "product=P7"),
    finds("a product, by serial", "product=P7&order=serial"),
    finds("a plant (1 in 10), by name", "org=/plant-3&order=name"),
    finds("a hall (1 in 1,000), by name", "org=/plant-3/hall-3&order=name"),
    finds("a label (1 in 7), by serial", "label=floor:3&order=serial"),
    finds("two labels and a plant", "label=floor:3&label=line&org=/plant-3"),
    finds("a text that many have", "text=device%201"),
    finds("a text that one has", "text=bench-000000"),
    Question { name: "a text that none has", query: "text=nothing-of-the-kind", finds: false },
];
