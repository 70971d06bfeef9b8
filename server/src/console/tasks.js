// Views of a queue's tasks and of one task. They are read when they are opened, refreshed or acted in, and not by themselves.
const PAGE_TASKS = 50;
const ERROR_SHOWN_MAX = 200;
// The API's bound of one redrive.
const REDRIVE_MAX = 10000;
// Characters of a payload that are shown: it may have a MiB.
const JSON_SHOWN_MAX = 4 * 1024;
// States of tasks that have a reason and a last error.
const LOST = ["dead", "failed"];
// Since when a task is in its state; what has ended, since its end.
const SINCE = { delayed: "readyAt", blocked: "readyAt", ready: "readyAt", leased: "startedAt" };

const queuePath = queue => "/v1/queues/" + encodeURIComponent(queue);
const taskPath = id => "/v1/tasks/" + encodeURIComponent(id);
const number = (count, state) => `${count} ${state} ${count === 1 ? "task" : "tasks"}`;

// The queue and state, or the task, that is shown.
let shown = {};

function tellWhy(element, why) {
  const next = make("span", why.nextStep);
  next.className = "soft";
  element.replaceChildren(link(why.reason, "/docs/explain/" + why.reason), " ", why.summary, " ", next);
}

function openQueue(queue, state = "ready") {
  const at = queuePath(queue);
  const tasks = readTasks(queue, state);
  return load("queue", Promise.all([read(at), read(at + "/explain"), tasks]), ([view, why, page]) => {
    shown = { queue, state };
    $("queue-title").textContent = queue;
    tellWhy($("queue-why"), why);
    showStates(queue, state, view.counts);
    $("purge").textContent = `Purge ${state}…`;
    const heads = ["task", "attempt", "priority", state === "delayed" ? "due" : "since", ...LOST.includes(state) ? ["reason", "last error"] : []];
    $("task-heads").replaceChildren(...heads.map(head => make("th", head)));
    $("tasks").replaceChildren();
    addTasks(page);
  });
}

// Tabs stay while their counts change, so that who stands on one goes on from there.
function showStates(queue, state, counts) {
  Object.entries(counts).forEach(([name, count], i) => {
    const tab = $("states").children[i] ?? $("states").appendChild(make("a"));
    tab.textContent = `${name} ${count}`;
    tab.href = `#queues/${encodeURIComponent(queue)}/${name}`;
    if (name === state) tab.setAttribute("aria-current", "page"); else tab.removeAttribute("aria-current");
  });
}

// The live page's counts go on here too, also after a purge, which the store counts for some seconds yet.
function followCounts(queues) {
  const queue = queues.find(other => other.name === shown.queue);
  if (queue) showStates(queue.name, shown.state, queue.counts);
}

function readTasks(queue, state, cursor) {
  const query = new URLSearchParams({ state, limit: PAGE_TASKS, ...cursor && { cursor } });
  return read(`${queuePath(queue)}/tasks?${query}`);
}

function addTasks(page) {
  const heads = [...$("task-heads").cells].map(head => head.textContent);
  for (const task of page.tasks) {
    const error = task.attempts?.at(-1)?.error.message ?? "";
    const lost = [task.deadReason, error.length > ERROR_SHOWN_MAX ? error.slice(0, ERROR_SHOWN_MAX) + "…" : error];
    const tr = row([link(task.id, "#tasks/" + task.id), `${task.attempt}/${task.maxAttempts}`, task.priority,
      task[SINCE[task.state] ?? "finishedAt"], ...LOST.includes(task.state) ? lost : []]);
    tr.querySelector("a").className = "id";
    tr.cells[5]?.classList.add("error");
    [...tr.cells].forEach((cell, i) => { cell.dataset.head = heads[i]; });
    $("tasks").append(tr);
  }
  shown.cursor = page.nextCursor;
  // A page may have fewer tasks than asked for, and none.
  $("more-tasks").hidden = !page.nextCursor;
  $("no-tasks").hidden = $("tasks").rows.length > 0 || page.nextCursor;
}

async function moreTasks() {
  const { queue, state, cursor } = shown;
  const before = $("tasks").rows.length;
  await load("queue", readTasks(queue, state, cursor), addTasks);
  const first = $("tasks").rows[before]?.querySelector("a");
  if (first || $("more-tasks").hidden) (first ?? $("queue-title")).focus();
}

async function purge() {
  const { queue, state } = shown;
  const done = await carryOut(`purge ${queue}`, async () => {
    const { matched } = await send(queuePath(queue) + "/purge", { states: [state], dryRun: true });
    if (matched === 0) return `There is no ${state} task to purge.`;
    const what = state === "leased" ? "The workers that hold them are asked to stop." : "They go, with all that is known of them. Nothing brings them back.";
    if (!await ask({ title: `Purge ${number(matched, state)} of ${queue}?`, what, deed: `Purge ${matched}`, risky: true })) return "";
    const did = await send(queuePath(queue) + "/purge", { states: [state] });
    return state === "leased" ? `The workers of ${number(did.matched, state)} are asked to stop.` : `Purged ${number(did.purged, state)}.`;
  });
  if (done) await look();
}

// What was counted, which is all that can be redriven: other filters are counted anew.
let counted = null;

function offer(redrive, text, bad) {
  counted = redrive;
  $("redrive-do").disabled = !redrive;
  $("redrive-do").textContent = redrive ? `Redrive ${redrive.limit}` : "Redrive";
  $("redrive-said").textContent = text;
  $("redrive-said").className = bad ? "bad" : "soft";
}

function askForRedrive() {
  $("redrive-title").textContent = `Redrive dead letters of ${shown.queue}`;
  offer(null, "Count first how many match.");
  $("redrive-ask").showModal();
}

function redriveOfForm() {
  const [errorKind, reason, rate] = ["redrive-kind", "redrive-reason", "redrive-rate"].map(id => $(id).value);
  const filter = { ...errorKind && { errorKind }, ...reason && { reason } };
  return { filter, ...rate && { ratePerSecond: Number(rate) } };
}

async function countRedrive(event) {
  event.preventDefault();
  const { queue } = shown, asked = redriveOfForm();
  // The filters may change while it is counted.
  const isMeant = () => $("redrive-ask").open && queue === shown.queue && JSON.stringify(asked) === JSON.stringify(redriveOfForm());
  let from = {}, matched = 0, cursor, told;
  try {
    // One call looks at some thousands. What is redriven begins where the first that match were found.
    do {
      if (cursor) from = { cursor };
      ({ matched, cursor } = await send(queuePath(queue) + "/redrive", { ...asked, ...from, dryRun: true }));
    } while (matched === 0 && cursor && isMeant());
    const text = `${number(matched, "dead")} match${matched === 1 ? "es" : ""}.` + (cursor ? " Count again after these: there may be more." : "");
    told = [matched > 0 ? { ...asked, ...from, limit: Math.min(matched, REDRIVE_MAX) } : null, text];
  } catch (error) { told = [null, error.message, true]; }
  if (isMeant()) offer(...told);
}

async function redrive() {
  const { queue } = shown, asked = counted;
  offer(null, "…");
  try {
    const { redriven } = await send(queuePath(queue) + "/redrive", asked);
    $("redrive-ask").close();
    say(`Redriven ${number(redriven, "dead")}${asked.ratePerSecond ? `, ${asked.ratePerSecond} a second` : ""}.`);
  } catch (error) { offer(null, error.message, true); }
  await look();
}

async function openTask(id) {
  const at = taskPath(id);
  // What a task ended with is read with it, so that all is shown at once.
  const reading = Promise.all([call("GET", at), read(at + "/explain"), read(at + "/events"), call("GET", at + "/result")]);
  return load("task", reading, ([text, why, { events }, ended]) => {
    const task = JSON.parse(text);
    shown = { id, task };
    $("path").replaceChildren(link("Queues", "#"), " / ", link(task.queue, `#queues/${encodeURIComponent(task.queue)}/${task.state}`));
    $("task-title").textContent = "Task " + task.id;
    tellWhy($("task-why"), why);
    fill($("evidence"), [["position", why.position], ["since", why.since], ...why.evidence.map(fact => [fact.name, fact.value])]);
    $("cancel").hidden = Boolean(task.finishedAt || task.cancelRequested);
    $("task-json").href = at;
    $("timeline").replaceChildren(...events.map(happened));
    // Of its attempts the events tell.
    const { id: _, attempts, payload, ...fields } = task;
    const told = Object.entries(fields).map(([name, value]) => [name, typeof value === "object" ? json(text, name, at) : value]);
    fill($("fields"), [...told, ["payload", json(text, "payload", at)], ["result", json(ended, "result", at + "/result")]]);
  });
}

function fill(list, entries) {
  const there = entries.filter(([, value]) => value !== undefined);
  list.replaceChildren(...there.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}

function happened(event) {
  const by = event.worker && "by " + event.worker, attempt = event.attempt && "attempt " + event.attempt;
  const rest = [attempt, by, event.reason, event.message].filter(text => text).join(" · ");
  return make("li", make("time", event.at), " ", make("b", event.type), " ", rest);
}

async function cancel() {
  const { id, task } = shown;
  const what = task.state === "leased" ? "Its worker is asked to stop with its next heartbeat." : "No worker gets it any more.";
  if (!await ask({ title: "Cancel this task?", what, deed: "Cancel it", risky: true })) return;
  await carryOut("cancel", async () => {
    const { state } = JSON.parse(await call("DELETE", taskPath(id)));
    return state === "cancelled" ? "It is cancelled." : "Its worker is asked to stop.";
  });
  if (await look() && $("cancel").hidden) $("task-title").focus();
}

// Numbers as they were sent: long ones would be rounded, as they are in browsers that do not tell their source.
const exact = (_, value, context) => typeof value === "number" && JSON.rawJSON ? JSON.rawJSON(context.source) : value;

// A member as text, if there is one, up to a bound; the path has all of it.
function json(object, name, path) {
  let text;
  // What is nested too deep to be indented is shown as it came.
  try { text = JSON.stringify(JSON.parse(object, exact)[name], null, 2); } catch { text = object; }
  if (text === undefined) return undefined;
  const pre = make("pre", text.slice(0, JSON_SHOWN_MAX));
  if (text.length > JSON_SHOWN_MAX) pre.append("\n… and more: ", link("GET " + path, path));
  return pre;
}

$("queue-refresh").onclick = $("task-refresh").onclick = look;
$("more-tasks").onclick = moreTasks;
$("purge").onclick = purge;
$("cancel").onclick = cancel;
$("redrive").onclick = askForRedrive;
$("redrive-form").oninput = () => offer(null, "Count first how many match.");
$("redrive-form").onsubmit = countRedrive;
$("redrive-do").onclick = redrive;
$("redrive-not").onclick = () => $("redrive-ask").close();
go();
