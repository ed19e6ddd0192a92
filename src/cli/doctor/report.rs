//! What was found, as lines for people or as JSON.

use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    Ok,
    /// It works, but less well than it could, or not for long.
    Warn,
    /// `run` would not do what it is for.
    Fail,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `node /data`, `clock`, ...
    pub group: String,
    pub mark: Mark,
    pub text: String,
    /// What to do about it; everything that is not ok has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Everything that was found, in the order of the checks.
#[derive(Debug, Default)]
pub struct Report {
    group: String,
    checks: Vec<Check>,
}

/// How marks are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    Ascii,
    Unicode,
}

impl Signs {
    fn of(self, mark: Mark) -> &'static str {
        match (self, mark) {
            (Self::Ascii, Mark::Ok) => "ok  ",
            (Self::Ascii, Mark::Warn) => "warn",
            (Self::Ascii, Mark::Fail) => "FAIL",
            (Self::Unicode, Mark::Ok) => "✔",
            (Self::Unicode, Mark::Warn) => "▲",
            (Self::Unicode, Mark::Fail) => "✘ FAIL",
        }
    }
}

impl Report {
    /// The checks that follow belong to this group.
    pub fn group(&mut self, name: impl Into<String>) {
        self.group = name.into();
    }

    pub fn ok(&mut self, text: impl Into<String>) {
        self.add(Mark::Ok, text.into(), None);
    }

    pub fn warn(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Mark::Warn, text.into(), Some(remedy.into()));
    }

    pub fn fail(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Mark::Fail, text.into(), Some(remedy.into()));
    }

    fn add(&mut self, mark: Mark, text: String, remedy: Option<String>) {
        self.checks.push(Check { group: self.group.clone(), mark, text, remedy });
    }

    pub fn count(&self, mark: Mark) -> usize {
        self.checks.iter().filter(|check| check.mark == mark).count()
    }

    /// Whether nothing failed.
    pub fn is_well(&self) -> bool {
        self.count(Mark::Fail) == 0
    }

    pub fn to_text(&self, signs: Signs) -> String {
        let mut text = String::new();
        let mut group = "";
        for check in &self.checks {
            if check.group != group {
                group = &check.group;
                text.push_str(&format!("{group}\n"));
            }
            text.push_str(&format!("  {} {}\n", signs.of(check.mark), check.text));
            if let Some(remedy) = &check.remedy {
                text.push_str(&format!("       -> {remedy}\n"));
            }
        }
        let (ok, warn, fail) =
            (self.count(Mark::Ok), self.count(Mark::Warn), self.count(Mark::Fail));
        text.push_str(&format!("{ok} ok, {warn} to look at, {fail} wrong\n"));
        text
    }

    /// One object: `ok`, and the checks.
    pub fn to_json(&self) -> String {
        let report = serde_json::json!({ "ok": self.is_well(), "checks": self.checks });
        format!("{report:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_drawn_by_groups_and_fails_by_its_worst_mark() {
        let mut report = Report::default();
        report.group("clock");
        report.ok("synchronised");
        report.group("ports");
        report.warn("busy", "wait");
        assert!(report.is_well());
        report.fail("taken", "give another");

        let text = report.to_text(Signs::Ascii);

        assert_eq!(
            text,
            "clock\n  ok   synchronised\nports\n  warn busy\n       -> wait\n  FAIL taken\n       \
             -> give another\n1 ok, 1 to look at, 1 wrong\n"
        );
        assert!(!report.is_well() && report.to_json().contains("\"ok\": false"));
        assert!(report.to_text(Signs::Unicode).contains("✘ FAIL taken"));
    }
}
