//! The page in Chromium, driven over its debugging pipe: from the front to one event, with a number
//! that changes while somebody looks, and a failure for each error of a script or of the policy.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

/// A browser with one page.
struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    session: Option<String>,
    last_id: u64,
    /// What went wrong in the page so far.
    errors: Vec<String>,
}

impl Browser {
    fn start(folder: &Path) -> Browser {
        let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let pipes = ["to", "from"].map(|name| folder.join(name));
        let made = Command::new("mkfifo").args(&pipes).status().expect("mkfifo runs");
        assert!(made.success(), "mkfifo");
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<\"$TO\" 4>\"$FROM\"", &program])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--remote-debugging-pipe", "--no-first-run", "--disable-background-networking"])
            .args([&profile, "about:blank"])
            .env("TO", &pipes[0])
            .env("FROM", &pipes[1])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        // A shell that cannot run the browser has opened both too, and then its end is read.
        let to = File::options().write(true).open(&pipes[0]).expect("a pipe");
        let from = BufReader::new(File::open(&pipes[1]).expect("a pipe"));
        let mut browser =
            Browser { child, to, from, session: None, last_id: 0, errors: Vec::new() };
        let target = browser.ask("Target.createTarget", &json!({"url": "about:blank"}));
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.ask("Target.attachToTarget", &target)["sessionId"].clone();
        browser.session = Some(session.as_str().expect("a session").to_owned());
        for domain in ["Runtime.enable", "Log.enable", "Page.enable", "Network.enable"] {
            browser.ask(domain, &json!({}));
        }
        browser
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("the browser reads");
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).expect("the browser writes");
            assert_eq!(
                answer.pop(),
                Some(0),
                "{method}: no browser; install chromium, or set $CHROMIUM"
            );
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            self.note(&answer);
            if answer["id"] == json!(self.last_id) {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => self.errors.push(params.to_string()),
            "Runtime.consoleAPICalled" if params["type"] == "error" => {
                self.errors.push(params.to_string())
            }
            // The policy's refusals and files that are missing.
            "Log.entryAdded" if params["entry"]["level"] == "error" => {
                self.errors.push(params.to_string())
            }
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                // The browser's own images of a date are data.
                if !url.starts_with("http://127.0.0.1:") && !url.starts_with("data:") {
                    self.errors.push(format!("a request to {url}"));
                }
            }
            _ => {}
        }
    }

    /// The value of an expression in the page.
    fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", &params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    fn wait_for(&mut self, condition: &str) {
        let begun = Instant::now();
        while self.value(condition) != json!(true) {
            let text = "document.body.innerText";
            assert!(begun.elapsed() < Duration::from_secs(20), "{condition}: {}", self.value(text));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn open(&mut self, url: &str) {
        self.ask("Page.navigate", &json!({"url": url}));
        self.wait_for(&format!(
            "location.href === {} && document.readyState === 'complete'",
            json!(url)
        ));
    }

    /// Clicks on the first link of this text, and waits for another page, with this title.
    fn click(&mut self, text: &str, title: &str) {
        let link = format!(
            "[...document.querySelectorAll('main a')].find((a) => a.textContent.trim() === {})",
            json!(text)
        );
        self.wait_for(&format!("{link} !== undefined"));
        self.value(&format!("window.isLeft = true; {link}.click()"));
        self.wait_for(&format!(
            "window.isLeft === undefined && document.title.startsWith({}) \
            && document.readyState === 'complete'",
            json!(title)
        ));
    }

    fn look(&mut self, width: u32, scheme: &str) {
        let size =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 800});
        self.ask("Emulation.setDeviceMetricsOverride", &size);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.ask("Emulation.setEmulatedMedia", &features);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_goes_from_the_front_to_one_event() {
    let collector = collector_of(&traffic()).await;
    let url = format!("http://{}{DAY}", collector.addr());
    tokio::task::block_in_place(|| walk(&collector, &url));
    collector.stop().await;
}

fn walk(collector: &Collector, url: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut browser = Browser::start(folder.path());
    browser.look(1440, "light");
    browser.open(url);
    let calls = "[...document.querySelectorAll('dt')].find((dt) => dt.textContent === 'Calls')\
        .nextElementSibling.textContent";
    assert_eq!(browser.value(calls), "3");
    // What has the focus keeps it while the numbers change.
    let focus = "document.activeElement.textContent";
    browser.value("[...document.querySelectorAll('#live a')].find((a) => a.textContent === 'umbrella').focus()");
    browser.wait_for("document.getElementById('state').textContent === 'Live'");
    store(collector, &[call(6, json!({}))]);
    browser.wait_for(&format!("{calls} === '4'"));
    assert_eq!(browser.value(focus), "umbrella");
    for (width, scheme) in [(1440, "dark"), (390, "light"), (390, "dark")] {
        browser.look(width, scheme);
        let fits = browser.value("document.documentElement.scrollWidth <= innerWidth");
        assert_eq!(fits, true, "{width}");
    }
    browser.click("acme", "Teams");
    browser.click("blue", "Agents");
    browser.click("agent-1", "Sessions");
    browser.click(&SESSION[..8], "Session");
    assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth"), true);
    let csv = "fetch([...document.querySelectorAll('a')].find((a) => a.textContent === 'CSV').href)\
        .then((answer) => answer.text())";
    let csv = browser.value(csv);
    let lines = csv.as_str().expect("text").lines().count();
    assert_eq!(
        json!(lines - 1),
        browser.value(
            "document.querySelectorAll('#live table:last-of-type tbody')\
        [document.querySelectorAll('#live table:last-of-type tbody').length - 1].rows.length"
        )
    );
    browser.click("openai gpt-4o-2024-08-06", "Event");
    let text = browser.value("document.querySelector('pre').textContent");
    assert!(text.as_str().expect("text").contains("\"generation_id\": \"0.1.3\""), "{text}");
    assert_eq!(browser.errors, Vec::<String>::new());
}
