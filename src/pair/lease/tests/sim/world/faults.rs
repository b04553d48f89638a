//! What goes wrong.

use super::*;

/// Durations in milliseconds. `Stop` is in order, with an announcement.
#[derive(Debug, Clone)]
pub enum Fault {
    Pause { host: usize, ms: u64 },
    Kill { host: usize, ms: u64 },
    Stop { host: usize, ms: u64, within: u64 },
    Reboot { host: usize, ms: u64 },
    Cut { from: usize, to: usize, ms: u64 },
    Isolate { host: usize, ms: u64 },
    Lossy { percent: u64, ms: u64 },
    Slow { delay: u64, ms: u64 },
}

impl World {
    pub(super) fn strike(&mut self, fault: Fault) {
        let until = |ms: u64| (self.now + ms * 1000).min(HEALED);
        match fault {
            Fault::Pause { host, ms } if self.hosts[host].process == Process::Runs => {
                let end = until(ms);
                self.hosts[host].process = Process::Paused;
                self.push(end, host, What::Resume);
            }
            Fault::Kill { host, ms } if self.hosts[host].process != Process::Off => self.kill(host, Process::Dead, ms),
            Fault::Reboot { host, ms } => self.kill(host, Process::Off, ms),
            Fault::Stop { host, ms, within } if self.hosts[host].process == Process::Runs => {
                let within = Duration::from_millis(within);
                self.numbers += 1;
                let (sent, number, generation) = (self.local(host), self.numbers, self.guests[host].generation);
                if self.guests[host].is_source {
                    self.guests[host].stopping = true;
                    let ask = Ask::Away {
                        generation,
                        within,
                        number,
                        sent,
                    };
                    self.ask(host, 1 - host, ask);
                }
                let life = self.hosts[host].life;
                self.push(self.now + ANSWER_LIMIT, host, What::Die { life, ms });
            }
            Fault::Cut { from, to, ms } => self.cut[from][to] = until(ms),
            Fault::Isolate { host, ms } => {
                let end = until(ms);
                for other in 0..3 {
                    (self.cut[host][other], self.cut[other][host]) = (end, end);
                }
            }
            Fault::Lossy { percent, ms } => self.lossy = (percent, until(ms)),
            Fault::Slow { delay, ms } => self.slow = (delay, until(ms)),
            Fault::Pause { .. } | Fault::Kill { .. } | Fault::Stop { .. } => {}
        }
    }

    pub(super) fn kill(&mut self, host: usize, process: Process, ms: u64) {
        let state = &mut self.hosts[host];
        state.process = process;
        state.life += 1;
        state.waiting.clear();
        let life = state.life;
        if process == Process::Off && host != WITNESS {
            self.guests[host].door = None;
        }
        self.push((self.now + ms * 1000).min(HEALED.max(self.now)), host, What::Start { life });
    }
}
