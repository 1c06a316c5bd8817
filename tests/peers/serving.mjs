// Serves an Express application for a test, as serving.py does one of Python: tells its port, and what was executed once
// its input ends.

export function serve(app, executed) {
    const listening = app.listen(0, "127.0.0.1", () => {
        console.log(`ready ${JSON.stringify({ port: listening.address().port })}`);
    });
    process.stdin.resume();
    process.stdin.on("end", () => {
        console.log(`executed ${JSON.stringify(executed)}`);
        process.exit(0);
    });
}
