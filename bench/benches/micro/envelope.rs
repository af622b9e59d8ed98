//! What travels beside a payload: written by one side, parsed by the other.

use std::hint::black_box;

use criterion::Criterion;
use ipc::envelope::{self, RequestFields};

/// What a browser or an HTTP client sends along.
const HEADERS: [(&[u8], &[u8]); 6] = [
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"content-type", b"application/json"),
    (b"host", b"127.0.0.1:8080"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"x-forwarded-for", b"203.0.113.195"),
];

pub fn bench(criterion: &mut Criterion) {
    let mut buffer = Vec::with_capacity(ipc::ENVELOPE_MAX);

    criterion.bench_function("envelope/request", |bencher| {
        bencher.iter(|| {
            let fields = RequestFields {
                method: b"POST",
                suffix: b"/2026/report.md",
                query: b"theme=dark",
                request_id: b"0123456789abcdef0123456789abcdef",
                traceparent: b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                headers: black_box(HEADERS).into_iter(),
            };
            buffer.clear();
            black_box(fields.encoded_size()).expect("fields within bounds");
            fields.encode(&mut buffer);
            let request = envelope::parse_request(black_box(&buffer)).expect("our own envelope");
            request.headers.map(|(name, value)| name.len() + value.len()).sum::<usize>()
        });
    });

    criterion.bench_function("envelope/call", |bencher| {
        bencher.iter(|| {
            let function: &[u8] = black_box(b"echo");
            buffer.clear();
            black_box(envelope::call_size(function)).expect("a name within bounds");
            envelope::encode_call(function, &mut buffer);
            envelope::parse_call(black_box(&buffer)).expect("our own envelope").len()
        });
    });
}
