//! Requests over HTTP: a load that is measured, and single ones.

use std::net::SocketAddr;
use std::time::Duration;

use super::Error;
use crate::load::target::Target;
use crate::load::{self, Keep, Pace, Plan};
use crate::sample::Sample;

/// Longer than any answer should take, so that whoever waits so long has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What the generator knows about itself and is worth keeping beside the latencies.
const KEPT: [&str; 5] = ["cpu_us_client", "late_us_p99", "rate", "reconnects", "unsent"];

/// What is sent, without saying how long.
pub struct Requests<'a> {
    /// Where to.
    pub address: SocketAddr,
    /// The function that is called.
    pub function: &'a str,
    /// Of every request.
    pub body: &'a str,
    /// Kept connections.
    pub connections: u32,
    /// Requests a second; nothing for as many as are answered.
    pub rate: Option<f64>,
}

/// Sends for so long, after a time that does not count, and gives the latencies as those of `case`,
/// with the rate. A request that failed is an error, and so is that there was none.
pub fn run(
    case: &str,
    requests: &Requests,
    warm_up: Duration,
    duration: Duration,
) -> Result<Sample, Error> {
    let failed = |what: String| Error::Requests { case: case.to_owned(), what };
    let plan = Plan {
        target: Target {
            address: requests.address,
            authority: requests.address.to_string(),
            path: format!("/function/{}", requests.function),
        },
        method: "POST".to_owned(),
        headers: Vec::new(),
        body: requests.body.as_bytes().to_vec(),
        also: Vec::new(),
        connections: requests.connections,
        pace: requests.rate.map_or(Pace::Closed, |per_second| Pace::Constant { per_second }),
        duration,
        warm_up,
        timeout: TIMEOUT,
        threads: 1,
        keep: Keep::Sums,
    };
    let report = load::run(&plan, &mut |_| ()).map_err(|error| failed(error.to_string()))?;
    if report.errors.total() > 0 {
        let kinds = report.errors.named().into_iter().filter(|(_, count)| *count > 0);
        let kinds: Vec<String> = kinds.map(|(kind, count)| format!("{count} {kind}")).collect();
        let (errors, all) = (report.errors.total(), report.requests);
        return Err(failed(format!("{errors} of {all} requests failed: {}", kinds.join(", "))));
    }
    let mut sample = report.sample(case);
    if sample.n == 0 {
        return Err(failed(format!("no request was answered within {duration:?}")));
    }
    sample.extra.retain(|name, value| KEPT.contains(&name.as_str()) && *value > 0.0);
    Ok(sample)
}

/// One request; its answer.
pub fn call(case: &str, address: SocketAddr, function: &str, body: &str) -> Result<String, Error> {
    let url = format!("http://{address}/function/{function}");
    let answer = ureq::post(&url).send(body);
    let answer = answer.and_then(|mut answer| answer.body_mut().read_to_string());
    answer.map_err(|error| Error::Requests { case: case.to_owned(), what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_request_that_fails_is_an_error_that_says_how() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
                    while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                        stream.write_all(answer).unwrap();
                    }
                });
            }
        });
        let requests = Requests { address, function: "nop", body: "", connections: 1, rate: None };
        let error = run("nop_c1", &requests, Duration::ZERO, Duration::from_millis(50))
            .unwrap_err()
            .to_string();
        assert!(error.contains("nop_c1") && error.contains("status"), "{error}");
    }
}
