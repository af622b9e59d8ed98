//! Requests over HTTP: a load that is measured, and single ones.

use std::net::SocketAddr;
use std::time::Duration;

use super::Error;
use crate::sample::Sample;

/// What is sent, without saying when it counts.
pub struct Requests<'a> {
    pub address: SocketAddr,
    pub function: &'a str,
    pub body: &'a str,
    pub connections: u32,
    /// Requests a second; nothing for as many as are answered.
    pub rate: Option<f64>,
}

/// Sends for so long and gives the latencies as those of `case`, which has the rate too.
/// A request that failed is an error.
pub fn run(case: &str, requests: &Requests, duration: Duration) -> Result<Sample, Error> {
    let failed = |what: String| Error::Requests { case: case.to_owned(), what };
    let script = std::env::temp_dir().join(format!("nightcore-bench-{}.lua", std::process::id()));
    let text = format!(
        "wrk.method='POST' wrk.path='/function/{}' wrk.body=[[{}]]\n{}",
        requests.function,
        requests.body,
        r#"function done(s,l) local e=s.errors
        io.write(string.format("R %d %d %d\n", s.requests, s.duration, e.connect+e.read+e.write+e.status+e.timeout))
        for _,p in ipairs({0,10,20,30,40,50,75,87.5,90,95,99,99.5,99.9,99.95,99.99,100}) do io.write(string.format("P %f %d\n", p, l:percentile(math.min(p,99.999)))) end end"#
    );
    std::fs::write(&script, text).map_err(|e| failed(e.to_string()))?;
    let output = std::process::Command::new("wrk")
        .args([
            "-t1",
            &format!("-c{}", requests.connections),
            &format!("-d{}s", duration.as_secs().max(1)),
            "-s",
        ])
        .arg(&script)
        .arg(format!("http://{}", requests.address))
        .output()
        .map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut sample =
        Sample::new(case, &hdrhistogram::Histogram::new(3).map_err(|e| failed(e.to_string()))?);
    sample.percentiles.clear();
    for line in text.lines() {
        let f: Vec<f64> = line.split(' ').skip(1).filter_map(|w| w.parse().ok()).collect();
        if line.starts_with("R ") {
            sample.n = f[0] as u64;
            sample.rps = Some(f[0] / f[1] * 1e6);
            if f[2] > 0.0 || f[0] == 0.0 {
                return Err(failed(format!("{} failed", f[2])));
            }
        } else if line.starts_with("P ") {
            sample.percentiles.push((f[0], f[1]));
        }
    }
    let at = |p: f64| sample.percentiles.iter().find(|x| x.0 == p).map_or(0.0, |x| x.1);
    (sample.p50_us, sample.p90_us, sample.p99_us, sample.p999_us, sample.p9999_us, sample.max_us) =
        (at(50.0), at(90.0), at(99.0), at(99.9), at(99.99), at(100.0));
    Ok(sample)
}

/// One request; its answer.
pub fn call(case: &str, address: SocketAddr, function: &str, body: &str) -> Result<String, Error> {
    let url = format!("http://{address}/function/{function}");
    let answer =
        ureq::post(&url).send(body).and_then(|mut answer| answer.body_mut().read_to_string());
    answer.map_err(|error| Error::Requests { case: case.to_owned(), what: error.to_string() })
}
