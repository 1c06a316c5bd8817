//! `agent-meter run`, `demo` and `check config`, as whoever types them sees them: one line for a
//! mistake.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Ended, Files, run};

/// The options that let a run need nothing of the machine.
const ANY: [&str; 10] = [
    // Each worker compiles the module.
    "--concurrency",
    "1",
    "--listen",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--collector",
    "127.0.0.1:0",
    "--ledger",
    "sqlite::memory:",
];

/// A run to an upstream that does not exist, with one option changed or added.
fn run_with(option: &str, value: &str) -> Ended {
    let mut words = vec!["run", "--upstream", "http://127.0.0.1:9"];
    words.extend(ANY.chunks(2).filter(|pair| pair[0] != option).flatten());
    run(&[&words[..], &[option, value]].concat())
}

/// The only line on stderr.
fn only_line(ended: &Ended) -> &str {
    assert_eq!((ended.status, &ended.out[..]), (1, ""), "{ended:?}");
    let lines: Vec<&str> = ended.err.lines().collect();
    let [line] = lines[..] else { panic!("expected one line, found {lines:#?}") };
    line
}

#[test]
fn a_wrong_configuration_is_one_line_that_names_the_file_and_the_place() {
    let files = Files::new();
    let product = "products: [{ id: a, type: MCP_SERVER, match: { path_prfix: / } }]";
    let file = files.with("typo.yaml", product);
    let expected = format!(
        "error: {file}: agent-meter configuration refused: products[0].match.path_prfix: unknown field `path_prfix`, expected one of `host`, `path`, `path_prefix`, `path_template`, `case`, `headers`; did you mean `path_prefix`?"
    );
    let work = files.at("tmp");
    std::fs::create_dir(&work).expect("a directory");
    let demo = |work: &str| {
        let mut command = support::command(&["demo", "--concurrency", "1", "--config", &file]);
        support::end(command.env("TMPDIR", work))
    };
    for ended in [run_with("--config", &file), demo(&work), run(&["check", "config", &file])] {
        assert_eq!(only_line(&ended), expected);
    }
    let left: Vec<_> = std::fs::read_dir(&work).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
    // It starts no Envoy.
    let expected = expected.replace("agent-meter configuration refused: ", "");
    let ended = run(&["bootstrap", "--upstream", "http://127.0.0.1:9", "--config", &file]);
    assert_eq!(only_line(&ended), expected);
}

#[test]
fn a_port_in_use_is_one_line_that_names_the_option_and_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("an address").to_string();
    let in_use = "Address already in use (os error 98)";
    for (option, expected) in [
        ("--listen", format!("error: --listen: cannot listen on {addr}: {in_use}")),
        ("--admin", format!("error: --admin: cannot listen on {addr}: {in_use}")),
        ("--collector", format!("error: cannot start the collector: listen on {addr}: {in_use}")),
    ] {
        assert_eq!(only_line(&run_with(option, &addr)), expected);
    }
    let collect = run(&["collect", "--listen", &addr, "--ledger", "sqlite::memory:"]);
    assert_eq!(only_line(&collect), format!("error: listen on {addr}: {in_use}"));
}

/// A run whose lines on stderr come one by one.
struct Running {
    child: Child,
    ready: Value,
    lines: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a line or the end may take; only a failure takes that long.
const LIMIT: Duration = Duration::from_secs(30);

impl Running {
    /// Starts a run and waits until it is ready.
    fn start(words: &[&str]) -> Self {
        let mut command = support::command(&[&["run"], words].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("a command");
        let mut first = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("stdout"));
        out.read_line(&mut first).expect("a line");
        let ready = first.strip_prefix("ready ").unwrap_or_else(|| panic!("not ready: {first:?}"));
        let ready = serde_json::from_str(ready).expect("JSON");
        let err = BufReader::new(child.stderr.take().expect("stderr"));
        let (say, lines) = channel();
        thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        Self { child, ready, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("a line on stderr")
    }

    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status().expect("kill");
        assert!(sent.success());
    }

    /// The status at the end, and how long it took.
    fn end(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return (status.code(), start.elapsed());
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }

    /// Sends a call, and returns the status of the answer.
    fn call(&self) -> u16 {
        self.post("/mcp", "a")
    }

    /// The same, to this path of this host.
    fn post(&self, path: &str, host: &str) -> u16 {
        let listen = self.ready["listen"].as_str().expect("an address");
        let mut stream = TcpStream::connect(listen).expect("Envoy");
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}"#;
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nx-customer-id: acme\r\ncontent-type: application/json\r\n\
             accept: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }
}

/// Answers each request with this response.
fn serve(listener: TcpListener, response: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut stream = stream;
                let mut head = [0; 65536];
                while stream.read(&mut head).is_ok_and(|count| count > 0) {
                    if stream.write_all(response.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

const NOBODY: &str = "Connection refused (os error 111)";

#[test]
fn a_server_that_comes_and_goes_is_one_line_each_and_the_page_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    drop(listener);
    let upstream = format!("http://{addr}");
    let mut running = Running::start(&[&["--upstream", &upstream], &ANY[..]].concat());
    let collector = running.ready["collector"].as_str().expect("an address");
    assert_eq!(running.ready["page"], format!("http://{collector}/"));
    let warning =
        format!("warning: the upstream {upstream} cannot be reached: {NOBODY}; clients get 503");
    assert_eq!(running.line(), warning);
    assert_eq!(running.call(), 503);
    let listener = TcpListener::bind(addr).expect("the same port");
    serve(listener, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(running.line(), format!("the upstream {upstream} can be reached again"));
    running.interrupt();
    let stopping = running.line();
    assert!(stopping.starts_with("stopping: "), "{stopping}");
    let (status, _) = running.end();
    assert_eq!(status, Some(0));
    let rest: Vec<String> = running.lines.iter().collect();
    assert!(rest.iter().all(|line| line.starts_with("recovered ")), "{rest:?}");
}

/// Lets a collector refuse the events of a call, and interrupts the run so often; returns its last
/// line and how long the end took.
fn ended_with_a_refusing_collector(interrupts: usize) -> (String, Duration) {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let collector = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let [served, refusing] = [&upstream, &collector]
        .map(|listener| format!("http://{}", listener.local_addr().expect("an address")));
    serve(
        upstream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 48\r\n\r\n\
         {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[]}}",
    );
    serve(collector, "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
    let options = ["--upstream", &served, "--collector", &refusing];
    let mut running = Running::start(&[&options, &ANY[..6]].concat());
    assert_eq!(running.call(), 200);
    assert_eq!(
        running.line(),
        format!(
            "warning: the collector {refusing} refuses the events with 401 Unauthorized, and they wait in Envoy; is the configuration's `collector.secret` one of its secrets?"
        )
    );
    running.interrupt();
    assert!(running.line().starts_with("stopping: "));
    for _ in 1..interrupts {
        thread::sleep(Duration::from_millis(500));
        running.interrupt();
    }
    let (status, took) = running.end();
    assert_eq!(status, Some(1));
    let lines: Vec<String> = running.lines.iter().collect();
    let [line] = &lines[..] else { panic!("expected one line, found {lines:#?}") };
    (line.clone(), took)
}

/// Removes the log that a command names, and returns how many events it had.
fn events_left(command: &str) -> u64 {
    let log = command.split(' ').nth(2).expect(command);
    let found = run(&["recover", log, "--dry-run"]);
    std::fs::remove_dir_all(Path::new(log).parent().expect("a directory")).expect("removed");
    let count = found.out.split(' ').nth(1).and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("{found:?}"))
}

#[test]
fn the_last_line_counts_the_events_that_are_left_and_says_how_to_recover_them() {
    let (line, took) = ended_with_a_refusing_collector(1);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (left, rest) = line.split_once(" events are left in Envoy's log, for `").expect(&line);
    let (command, rest) = rest.split_once('`').expect(&line);
    assert!(rest.contains("the collector has not taken them within 5s"), "{line}");
    let left: u64 = left.strip_prefix("error: ").expect(&line).parse().expect(&line);
    assert!(left > 0 && left == events_left(command), "{line}");
}

#[test]
fn a_second_interrupt_ends_at_once_and_loses_nothing() {
    let (line, took) = ended_with_a_refusing_collector(2);
    assert!(took < Duration::from_secs(1), "{took:?}");
    let stopped = "error: stopped at once: what Envoy had not delivered is in its log, for `";
    let command = line.strip_prefix(stopped).and_then(|line| line.strip_suffix('`')).expect(&line);
    assert!(events_left(command) > 0, "{line}");
}

#[test]
fn a_route_leads_to_its_server_by_path_and_by_host_and_to_no_other() {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let routed = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let [served, by_path] = [&upstream, &routed]
        .map(|listener| format!("http://{}", listener.local_addr().expect("an address")));
    serve(upstream, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
    serve(routed, "HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n");
    let files = Files::new();
    let product = "{ id: a, type: STANDARD_API, match: { path_prefix: / } }";
    let config = files.with("all.yaml", format!("products: [{product}]"));
    let contracts = files.with("contracts.yaml", "customers: {acme: {contracted_revenue: '2.00'}}");
    let local = format!("local={by_path}");
    let options = [
        ["--upstream", &served],
        ["--config", &config],
        ["--contracts", &contracts],
        ["--route", &local],
        ["--route", "outside=https://nowhere.invalid"],
    ];
    let mut running = Running::start(&[options.as_flattened(), &ANY].concat());
    assert!(
        running
            .line()
            .starts_with("warning: the upstream https://nowhere.invalid cannot be reached: ")
    );
    for (path, host, status) in [
        ("/mcp", "a", 202),
        ("/local/v1/messages", "a", 418),
        ("/localv1", "a", 202),
        ("/outside/v1", "a", 503),
        ("/v1", "nowhere.invalid", 503),
        ("/v1", "Nowhere.invalid:1", 503),
        ("/local/v1", "nowhere.invalid", 503),
        ("/v1", "nowherexinvalid", 202),
    ] {
        assert_eq!(running.post(path, host), status, "{host}{path}");
    }
    running.interrupt();
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn options_that_would_have_no_effect_are_refused() {
    let files = Files::new();
    let contracts = files.with("contracts.yaml", "customers: {}");
    let collector = "http://127.0.0.1:9";
    let words = ["run", "--upstream", collector, "--collector", collector];
    let ended = run(&[&words[..], &["--contracts", &contracts]].concat());
    let expected = format!(
        "error: --contracts: only for the own collector; {collector} has options of its own"
    );
    assert_eq!(only_line(&ended), expected);
    // Without a product for it, nobody would meter it.
    let ended = run_with("--route", "llm=https://api.openai.com");
    assert_eq!(ended.status, 2);
    assert!(ended.err.contains("--config"), "{}", ended.err);
}
