// What all views share: elements, calls of the API, questions, and the view that the address names.
const $ = id => document.getElementById(id);

// Elements are made of text, so that a name, an error or a payload is never read as markup.
function make(tag, ...content) {
  const element = document.createElement(tag);
  element.append(...content);
  return element;
}

function link(text, href) {
  const a = make("a", text);
  a.href = href;
  return a;
}

const row = cells => make("tr", ...cells.map(cell => make("td", cell ?? "–")));

// The answer's text, or what the server says is wrong as an error.
async function call(method, path, body) {
  const headers = { "content-type": "application/json" };
  let answer, text;
  try {
    // No payload stays in the browser's cache.
    answer = await fetch(path, { method, cache: "no-store", ...body && { headers, body: JSON.stringify(body) } });
    text = await answer.text();
  } catch { throw new Error(method === "GET" ? "no answer from the server" : "no answer; look whether it was done"); }
  if (answer.ok) return text;
  let message = `the answer is ${answer.status}`;
  // What stands before the server may answer in a shape of its own.
  try { message = JSON.parse(text).error.message; } catch {}
  throw new Error(message);
}

const read = async path => JSON.parse(await call("GET", path));
const send = async (path, body) => JSON.parse(await call("POST", path, body));

function say(text, bad) {
  $("said").textContent = text;
  $("said").className = bad ? "bad" : "";
}

// Does what was asked for, and says what became of it. Whether it was done.
async function carryOut(what, deed) {
  try { say(await deed()); return true; } catch (error) { say(`${what}: ${error.message}`, true); return false; }
}

// Whatever changes something is asked for twice. A risky deed is not what a second Enter does.
function ask({ title, what, deed, takesReason = false, risky = false }) {
  $("ask-title").textContent = title;
  $("ask-what").textContent = what;
  $("ask-why").hidden = !takesReason;
  $("ask-do").textContent = deed;
  $("reason").value = "";
  $("ask").returnValue = "";
  $("ask").showModal();
  if (risky) $("ask-not").focus();
  // That the question before was closed may be told only now, while this one is open.
  return new Promise(answer => { $("ask").onclose = () => $("ask").open || answer($("ask").returnValue === "do"); });
}

// Counts what was opened: an answer for a view that was left meanwhile is dropped.
let visit = 0;
// Shows what is being read, in the view of this id. Whether it is shown.
async function load(id, reading, show) {
  const mine = ++visit;
  try {
    const answers = await reading;
    if (mine !== visit) return false;
    show(answers);
    $(id).hidden = false;
    return true;
  } catch (error) {
    if (mine === visit) say(error.message, true);
    return false;
  }
}

// #queues/NAME/STATE and #tasks/ID; all else is the live page.
function parts(hash) {
  try { return hash.slice(1).split("/").map(decodeURIComponent); } catch { return []; }
}

// Shows the view that the address names, as it is now. Whether it is shown.
function look() {
  const [kind, name, state] = parts(location.hash);
  if (kind === "queues" && name) return openQueue(name, state);
  if (kind === "tasks" && name) return openTask(name);
  return load("home", null, () => {});
}

let address = null;
async function go() {
  const before = address;
  address = location.hash;
  const [kind, name] = parts(address);
  const [kindBefore, nameBefore] = parts(before ?? "");
  const stays = before !== null && kind === kindBefore && name === nameBefore;
  say("");
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  if (!stays) {
    for (const main of document.querySelectorAll("main")) main.hidden = true;
    $("path").hidden = !name;
    $("path").replaceChildren(link("Queues", "#"));
  }
  document.title = name ? name + " · Brisq" : "Brisq";
  const isShown = await look();
  // Who goes back stands where they left; who goes on, at the beginning. A state is chosen where one stands.
  if (!isShown || stays || before === null) return;
  const links = document.querySelectorAll("main:not([hidden]) tbody a");
  const left = [...links].find(a => a.hash && (before + "/").startsWith(a.hash + "/"));
  (left ?? document.querySelector("main:not([hidden]) [tabindex='-1']")).focus();
}
addEventListener("hashchange", go);
