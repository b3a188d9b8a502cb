//! The platform's own counters, as `/metrics` tells them.

/// One reading of `/metrics`.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// From the text of the Prometheus format.
    pub fn new(text: String) -> Metrics {
        Metrics(text)
    }

    /// The sum of the samples of a metric that carry this label.
    pub fn labelled(&self, name: &str, label: &str, value: &str) -> f64 {
        let label = format!("{label}=\"{value}\"");
        let samples = self.0.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let samples = samples.filter(|rest| rest.contains(&label));
        samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The samples of a metric that have labels: these, and the value.
    pub fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let samples = self.0.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('{'));
        samples.filter_map(|rest| {
            let (labels, value) = rest.rsplit_once("} ")?;
            Some((labels, value.parse().ok()?))
        })
    }

    /// The sum of all samples of a metric, whatever their labels; 0 when there is none yet.
    pub fn sum(&self, name: &str) -> f64 {
        let samples = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let samples = samples.filter(|rest| rest.starts_with(['{', ' ']));
        samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_name_are_added() {
        let metrics = Metrics::new(
            "# TYPE a counter\na{reason=\"x y\"} 3\na{reason=\"z\"} 4\na_total 100\n# TYPE b gauge\nb 1.5\n".to_owned(),
        );
        assert_eq!(metrics.labelled("a", "reason", "z"), 4.0);
        assert_eq!(metrics.samples("a").collect::<Vec<_>>(), [("reason=\"x y\"", 3.0), ("reason=\"z\"", 4.0)]);
        assert_eq!((metrics.sum("a"), metrics.sum("b"), metrics.sum("c")), (7.0, 1.5, 0.0));
    }
}
