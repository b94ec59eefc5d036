//! Prints the raw events of a process.
use collector::capture::*;
use std::time::*;
fn main() {
    let mut c = Capture::start(&Options::default()).unwrap();
    let pid: u32 = std::env::args().nth(1).unwrap().parse().unwrap();
    c.trace(pid).unwrap();
    let t = Instant::now();
    let secs: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let quiet = std::env::args().nth(3).is_some();
    let mut n = 0usize;
    while t.elapsed() < Duration::from_secs(secs) {
        c.wait(Duration::from_millis(10));
        c.drain(100000, |b| { n += 1; if quiet { return; } match decode(b) {
            Ok(Event::Socket(s)) => println!("{:?} {:?} fl{:x} tid{} {:?}->{:?} role{:?} isn {:x}/{:x} off {} other {} len {} cap {} ret {} {:?}", s.call, s.direction, s.flags, s.tid, s.local, s.remote, s.role, s.local_isn, s.remote_isn, s.offset, s.other_offset, s.total_len, s.payload.len(), s.result, String::from_utf8_lossy(&s.payload[..s.payload.len().min(40)])),
            e => println!("{e:?}"),
        }});
    }
    println!("{n} records");
    for (c, v) in c.counters() {
        println!("{} {:?}", c.as_str(), v);
    }
}
