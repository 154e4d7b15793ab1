// POSTs BODY to the address: URL BODY [SECONDS]. Says the status and the answer.
const [url, body, seconds] = process.argv.slice(2);
const patience = seconds ? { signal: AbortSignal.timeout(seconds * 1000) } : {};
try {
  const answer = await fetch(url, { method: "POST", body, ...patience });
  console.log(answer.status, await answer.text());
} catch (error) {
  if (error.name !== "TimeoutError") throw error;
  console.log("left");
}
