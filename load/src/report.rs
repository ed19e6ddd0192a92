//! What a run has found: lines of text as it goes, and one JSON document at its end.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde_json::{Map, Value, json};

use crate::{
    process,
    run::{Outcome, Phase},
};

pub struct Report {
    json: bool,
    document: Map<String, Value>,
    phases: Vec<Value>,
    outcomes: Vec<Value>,
    failures: Vec<String>,
}

impl Report {
    pub fn new(profile: &str, json: bool) -> anyhow::Result<Self> {
        let mut document = Map::new();
        document.insert("profile".into(), profile.into());
        document.insert("load_at_start".into(), process::load().into());
        let report =
            Self { json, document, phases: Vec::new(), outcomes: Vec::new(), failures: Vec::new() };
        report
            .say(format_args!("{profile}, load of the machine at the start {}", process::load()))?;
        Ok(report)
    }

    /// A line for people.
    pub fn say(&self, line: impl std::fmt::Display) -> io::Result<()> {
        if self.json { writeln!(io::stderr(), "{line}") } else { writeln!(io::stdout(), "{line}") }
    }

    /// A figure of the whole run.
    pub fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.document.insert(name.to_owned(), value.into());
    }

    /// A measurement.
    pub fn phase(&mut self, phase: &Phase) -> anyhow::Result<()> {
        let latency = &phase.latency_ms;
        let cost = match (phase.cpu_us_per_delivery, phase.deliveries_per_cpu_second, phase.cpu) {
            (Some(each), Some(rate), Some(cpu)) => format!(
                "{each:.2} us of server each ({:.2} + {:.2} s), {rate:.0} a server second",
                cpu.user, cpu.system
            ),
            _ => "server's processor time not known".to_owned(),
        };
        self.say(format_args!(
            "{:<8} {:<22} {} sessions, {} events: {} deliveries in {:.1} s, {:.0}/s; {cost}",
            phase.server,
            phase.name,
            phase.sessions,
            phase.events,
            phase.deliveries,
            phase.seconds,
            phase.deliveries_per_second,
        ))?;
        let memory = phase
            .memory
            .map_or(String::new(), |memory| format!("RSS {:.1} MB, ", memory.rss as f64 / 1e6));
        self.say(format_args!(
            "{:31} p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.1} ms; {memory}{:.1} events a \
             read of {:.0} bytes; driver {:.1} s, others {:.2} cores",
            "",
            latency.p50,
            latency.p90,
            latency.p99,
            latency.p999,
            latency.max,
            phase.events_per_read,
            phase.payload_bytes,
            phase.driver_cpu_seconds,
            phase.others_busy,
        ))?;
        if let Some(answers) = &phase.answers_ms {
            self.say(format_args!(
                "{:31} polls that found something waiting: p50 {:.2}, p99 {:.2}, max {:.1} ms",
                "", answers.p50, answers.p99, answers.max
            ))?;
        }
        self.phases.push(serde_json::to_value(phase)?);
        Ok(())
    }

    /// A server that was stopped.
    pub fn outcome(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        let clients = &outcome.clients;
        if let Some(failure) = &outcome.failure {
            self.say(format_args!("!! COUNTS DO NOT ADD UP ({}): {failure}", outcome.server))?;
            self.say(format_args!("!! {}", serde_json::to_string(clients)?))?;
            self.failures.push(failure.clone());
        } else {
            let stored = if outcome.sessions.is_some() { ", all stored once" } else { "" };
            self.say(format_args!(
                "{:<8} expected {} = received {}, in order, {} compared byte by byte{stored}",
                outcome.server, clients.expected, clients.received, clients.compared
            ))?;
        }
        self.outcomes.push(serde_json::to_value(outcome)?);
        Ok(())
    }

    /// Prints the document, if it was wanted. A run that failed gives a code that says so.
    pub fn end(mut self) -> anyhow::Result<ExitCode> {
        self.say(format_args!("load of the machine at the end {}", process::load()))?;
        self.put("load_at_end", process::load());
        self.document.insert("phases".into(), self.phases.into());
        self.document.insert("outcomes".into(), self.outcomes.into());
        self.document.insert("failures".into(), json!(self.failures));
        if self.json {
            serde_json::to_writer_pretty(io::stdout(), &self.document)?;
            writeln!(io::stdout())?;
        }
        Ok(if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
