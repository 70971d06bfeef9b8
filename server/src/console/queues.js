// The live page: queues, claim latency against its objective, and captures, as the server tells them once a second.
const HISTORY = 120;
const percentiles = [];
let last = null;

// A queue that is paused says so under its name, and why.
function pauseOf(q) {
  if (!q.paused) return "";
  const by = q.paused.by ? " by " + q.paused.by : "";
  return "paused" + by + " since " + q.paused.since + (q.paused.reason ? ": " + q.paused.reason : "");
}

// A queue's row stays while its numbers change: who stands on its button by the keyboard keeps standing there.
const rows = new Map();
function queueRow(q, numbers) {
  let known = rows.get(q.name);
  if (!known) {
    const pause = make("div"), button = make("button");
    pause.className = "paused";
    button.onclick = () => pauseOrResume(rows.get(q.name).queue);
    known = { tr: row([make("div", link(q.name, "#queues/" + encodeURIComponent(q.name)), pause), ...numbers, button]), pause, button };
    rows.set(q.name, known);
  }
  known.queue = q;
  known.pause.textContent = pauseOf(q);
  known.button.textContent = q.paused ? "Resume" : "Pause";
  known.button.setAttribute("aria-label", known.button.textContent + " " + q.name);
  numbers.forEach((number, i) => { known.tr.cells[i + 1].textContent = number ?? "–"; });
  return known.tr;
}

// Rows are moved only where another one stands: moving what has the focus would take it away.
function showQueues(queues, seconds) {
  const wanted = queues.map(q => queueRow(q, [q.counts.ready, q.counts.delayed, q.counts.leased, q.counts.dead,
    age(q.oldestReadyAgeMs), ...rates(q, seconds), q.claimersWaiting]));
  for (const [name, known] of rows) {
    if (!wanted.includes(known.tr)) { known.tr.remove(); rows.delete(name); }
  }
  wanted.forEach((tr, i) => { if ($("queues").rows[i] !== tr) $("queues").insertBefore(tr, $("queues").rows[i] ?? null); });
}

// A pause stops all workers of a queue, and who resumes one may not know why it was paused.
async function pauseOrResume(q) {
  const deed = q.paused ? "Resume" : "Pause";
  const what = q.paused ? pauseOf(q) : "Workers get no task of it until it is resumed. Enqueues and running tasks go on.";
  if (!await ask({ title: `${deed} ${q.name}?`, what, deed, takesReason: !q.paused })) return;
  const act = deed.toLowerCase();
  await carryOut(`${act} ${q.name}`, async () => {
    await send(`/v1/queues/${encodeURIComponent(q.name)}/${act}`, q.paused ? {} : { reason: $("reason").value });
    return "";
  });
}

function age(ms) {
  if (ms === undefined) return "–";
  if (ms < 1000) return ms + " ms";
  return ms < 120000 ? (ms / 1000).toFixed(1) + " s" : Math.round(ms / 60000) + " min";
}

function rates(q, seconds) {
  const before = last && last.queues.find(other => other.name === q.name);
  return ["enqueuedTotal", "claimedTotal", "completedTotal"].map(key => {
    const rate = before ? (q[key] - before[key]) / seconds : NaN;
    return Number.isFinite(rate) ? Math.max(0, Math.round(rate)) : "–";
  });
}

// Of a server whose claims nobody judges, no percentile is known, however many there are.
function chart(watch, claimed) {
  // Without claims there is no percentile, and nothing to draw.
  const p99 = Number.isFinite(watch.p99Ms) ? watch.p99Ms : null;
  const threshold = Number.isFinite(watch.thresholdMs) ? watch.thresholdMs : null;
  percentiles.push(p99);
  if (percentiles.length > HISTORY) percentiles.shift();
  const top = Math.max(1, (threshold ?? 0) * 2, ...percentiles.filter(v => v !== null)) * 1.1;
  const y = ms => 140 - ms / top * 135;
  const points = percentiles.map((ms, i) => ms === null ? null : `${600 - (percentiles.length - 1 - i) * 600 / (HISTORY - 1)},${y(ms)}`);
  $("p99").setAttribute("points", points.filter(p => p).join(" "));
  const line = threshold === null ? -9 : y(threshold);
  $("objective").setAttribute("y1", line);
  $("objective").setAttribute("y2", line);
  const drawn = percentiles.some(v => v !== null);
  $("scale").textContent = drawn ? "top of the scale: " + top.toPrecision(3) + " ms" : "";
  const none = !claimed && !drawn ? "no claims yet" : watch.slo ? "no claims now" : "not measured here";
  $("now").textContent = p99 !== null ? p99.toPrecision(3) + " ms" : none;
  $("slo").textContent = [watch.objective ? "objective " + watch.objective : "no objective armed", watch.slo].filter(t => t).join(" · ");
  $("slo").className = watch.slo || "soft";
}

function show(s) {
  const now = performance.now();
  const seconds = last ? (now - last.at) / 1000 : 1;
  $("store").textContent = s.store;
  $("trouble").textContent = "";
  showQueues(s.queues, seconds);
  followCounts(s.queues);
  // Made anew only where there is something new: who stands on a link by the keyboard keeps standing there.
  const captures = JSON.stringify(s.watch.captures);
  if (captures !== last?.captures) $("captures").replaceChildren(...s.watch.captures.map(c => row([c.name, c.at, c.reason,
    c.cause ?? "being made…", c.report ? link("open", "/captures/" + c.report) : ""])));
  $("more").hidden = !s.more;
  $("none").hidden = s.watch.captures.length > 0;
  chart(s.watch, s.claimed);
  last = { at: now, queues: s.queues, captures };
}

const events = new EventSource("/console/events");
events.onmessage = e => show(JSON.parse(e.data));
events.addEventListener("trouble", e => { $("trouble").textContent = e.data; });
events.onerror = () => { $("trouble").textContent = "no connection to the server"; };
