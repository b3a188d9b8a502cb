use clap::CommandFactory as _;

use super::*;

fn parse(arguments: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("vestibule").chain(arguments.split_whitespace()))
}

#[test]
fn the_command_line_holds_together() {
    Cli::command().debug_assert();
}

/// Every command that does something shows an example in its help and takes `--json`.
#[test]
fn every_command_has_an_example() {
    fn visit(command: &clap::Command, seen: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "{} has no example", command.get_name());
        assert!(help.contains("vestibule "), "{} has no example", command.get_name());
        assert!(command.get_about().is_some(), "{} does not say what it does", command.get_name());
        seen.push(command.get_name().to_owned());
        command
            .get_subcommands()
            .filter(|command| command.get_name() != "help" && !command.is_hide_set())
            .for_each(|command| visit(command, seen));
    }
    let mut seen = Vec::new();
    visit(&Cli::command(), &mut seen);
    for name in [
        "up",
        "demo",
        "add",
        "enrol",
        "list",
        "show",
        "children",
        "get",
        "set",
        "invoke",
        "queue",
        "pass",
        "watch",
        "redirect",
        "keep-alive",
        "force-offline",
        "remove",
        "why",
        "follow",
        "audit",
        "describe",
        "token",
        "webhook",
        "dead-letters",
        "replay",
        "roll",
        "issue",
        "revoke",
        "overdue",
        "user",
        "password",
    ] {
        assert!(seen.iter().any(|seen| seen == name), "{name} is missing from {seen:?}");
    }
}

#[test]
fn command_lines_people_type() {
    for line in [
        "up",
        "up -c v.toml --data d --set a=b --set c=d --ready-file r.json",
        "demo --check --json --port 0 --data d",
        "device add SN-1 --code ABCDEF --product P --name N",
        "device add SN-1 --code-file - --url http://127.0.0.1:1 --token-file t",
        "device --url http://127.0.0.1:1 --token-file t list",
        "device enrol SN-1 --window 15m",
        "device list --json",
        "pass list --device SN-1 --limit 5 --json",
        "pass follow --device SN-1 --after 0",
        "device show SN-1",
        "device rotate SN-1 --code-file -",
        "device provision SN-1",
        "device codes serials.txt",
        "device sheet devices.csv --out sheet.html --qr-dir labels",
        "device strangers",
        "device suites SN-1 --legacy open --plain closed",
        "device disable SN-1",
        "device enable SN-1 --json",
        "device invoke SN-1 Lamp/0/Light/Blink {\"count\":3} --deadline 5s --json",
        "device invoke SN-1 Light/Blink",
        "device get SN-1",
        "device get SN-1 Lamp/0/Light/Power --json",
        "device set SN-1 Light/Power true --wait 5s --expires-in 1h",
        "device add SN-2 --code-file - --parent SN-1",
        "device add SN-3 --code-file - --org /plant-1/hall-2 --label floor=2 --label line=a",
        "device list --org /plant-1",
        "device list --online --suite legacy --label floor=2 --label door --text gate --order -seen --enabled",
        "device import devices.csv --dry-run --json",
        "device import - --format ndjson",
        "device export --format csv --output devices.csv --offline",
        "device bulk label --org /plant-1 --set a=b --unset c --dry-run",
        "device bulk move --device SN-1 --device SN-2 --to /",
        "device bulk enrol --product cam --window 1h --json",
        "device describe SN-1 --name N --org / --label a=b --no-label c --json",
        "token add ci --role operator --subtree /plant-1 --expires-in 30d --json",
        "token list --limit 5",
        "token remove ci",
        "user add anna --role admin --password-file - --subtree /plant-1",
        "user list --json",
        "user password anna --password-file p.txt",
        "user remove anna",
        "device children SN-1 --json",
        "device invoke SN-1 Light/Blink --queue 10m --idempotency-key k-1",
        "device queue SN-1",
        "device queue SN-1 --cancel 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10",
        "device pass SN-1 Meter/0/Raw/Frame --type text/plain --data hello",
        "device pass SN-1 Raw/Frame --type a/b --file - --deadline 5s",
        "device redirect SN-1 hall.example",
        "device keep-alive SN-1 60s",
        "device silence SN-1 1100/18759 7002",
        "device silence SN-1",
        "device force-offline SN-1",
        "audit --device SN-1 --actor a --action b --from 1d --to 1h --limit 5 --json",
        "webhook add https://hall.example/in --name N --kind event --kind pass --device SN-1 --area a --type t",
        "webhook add https://hall.example/in --secret-file - --after 0 --disabled --json",
        "webhook list --json",
        "webhook show 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10",
        "webhook test 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10",
        "webhook dead-letters 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10 --limit 5",
        "webhook replay 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10 --position 7 --position 8",
        "webhook remove 019bb8f0-9c5e-7a70-a1a7-0a4d0f0d2f10",
        "device watch SN-1 --json",
        "device why SN-1",
        "device remove SN-1",
        "event list --device SN-1 --area a --type t --from 2026-01-31T00:00:00Z --to 1h --limit 5",
        "event follow --device SN-1 --after 0",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn wrong_command_lines_are_usage_errors() {
    for line in [
        "",
        "dance",
        "device add SN-1",
        "device add SN-1 --code A --code-file b",
        "device add --code A",
        "device enrol SN-1 --window soon",
        "device pass SN-1 Raw/Frame --type a/b",
        "device pass SN-1 Raw/Frame --data x",
        "device pass SN-1 Raw/Frame --type a/b --data x --file y",
        "device invoke SN-1 Light/Blink --queue soon",
        "device keep-alive SN-1",
        "device silence SN-1 door",
        "audit --limit 0",
        "event list --from yesterday",
        "event follow --after -1",
        "demo --port 70000",
        "up --colour red",
    ] {
        let error = parse(line).err().unwrap_or_else(|| panic!("`{line}` is accepted"));
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn a_wrong_configuration_is_a_usage_error_and_any_other_failure_is_not() {
    let problems = anyhow::Error::new(Problems(Vec::new()));
    assert_eq!(report(&problems), ExitCode::from(2));
    assert_eq!(report(&anyhow::anyhow!("no")), ExitCode::FAILURE);
    assert_eq!(report(&OutputClosed.into()), ExitCode::SUCCESS);
}
