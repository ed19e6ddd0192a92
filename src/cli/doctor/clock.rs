//! The clock of this machine: lags and retention are measured by it.

use super::report::Report;

/// An error above this makes lags meaningless, microseconds.
const MAX_ERROR_MICROS: i64 = 1_000_000;

/// What the kernel says of its clock.
#[derive(Clone, Copy, Debug)]
struct Discipline {
    is_synchronised: bool,
    max_error_micros: i64,
}

pub fn check(report: &mut Report) {
    report.group("clock");
    judge(discipline(), report);
}

fn judge(found: Result<Discipline, std::io::Error>, report: &mut Report) {
    match found {
        Ok(found) if found.is_synchronised && found.max_error_micros <= MAX_ERROR_MICROS => {
            let ms = found.max_error_micros / 1_000;
            report.ok(format!("synchronised, at most {ms} ms wrong"));
        }
        Ok(found) if found.is_synchronised => {
            let ms = found.max_error_micros / 1_000;
            report.warn(
                format!("synchronised, but up to {ms} ms wrong"),
                "see `chronyc tracking` or `timedatectl timesync-status`",
            );
        }
        Ok(_) => report.warn(
            "nobody synchronises it, as far as the kernel knows (in a container: see the host)",
            "timedatectl set-ntp true, or apt-get install chrony",
        ),
        Err(error) => report.warn(
            format!("the kernel does not tell whether it is synchronised: {error}"),
            "look at the host: timedatectl",
        ),
    }
}

/// Asks the kernel, whoever disciplines it: chrony, ntpd, systemd-timesyncd.
fn discipline() -> Result<Discipline, std::io::Error> {
    // SAFETY: all bits zero is a valid `timex`: it is a struct of integers.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    timex.modes = 0; // Only a question: nothing is set.
    // SAFETY: `timex` is a valid, exclusive place for the answer.
    let state = unsafe { libc::adjtimex(&mut timex) };
    if state < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(Discipline {
        is_synchronised: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0,
        max_error_micros: timex.maxerror,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Signs;

    fn judged(is_synchronised: bool, max_error_micros: i64) -> String {
        let mut report = Report::default();
        judge(Ok(Discipline { is_synchronised, max_error_micros }), &mut report);
        report.to_text(Signs::Ascii)
    }

    #[test]
    fn a_clock_is_good_when_it_is_synchronised_and_nearly_right() {
        assert!(judged(true, 12_345).contains("ok   synchronised, at most 12 ms wrong"));
        assert!(judged(true, 16_000_000).contains("warn synchronised, but up to 16000 ms wrong"));
        assert!(judged(false, 0).contains("warn nobody synchronises it"));
    }
}
