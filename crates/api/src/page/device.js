"use strict";
/* One device, opened from the list: its attributes, with a line to set one or to have an operation carried out; what waits for it; what
   was done to it last. */
const REFRESH = 2000;
let opened = null, timer = null;

function openDevice(device) {
  opened = device.id;
  $("device-name").textContent = device.name || device.serial;
  for (const list of ["attributes", "queue", "audit"]) fill(list, [], () => null, list === "attributes" && "Loading…");
  $("outcome").hidden = true;
  $("detail").hidden = false;
  refreshDevice();
}
function closeDevice() {
  opened = null;
  clearTimeout(timer);
  $("detail").hidden = true;
}
/* A list that says what it said before is left alone: somebody may be about to press a button in it. */
function fill(id, items, row, none) {
  const list = $(id), text = JSON.stringify([opened, items, none]);
  if (list.said === text) return;
  list.said = text;
  const rows = items.map(row);
  if (!rows.length && none) rows.push(make("li", "empty", none));
  list.replaceChildren(...rows);
  if (id !== "attributes") list.parentElement.hidden = !rows.length;
}
async function refreshDevice() {
  clearTimeout(timer);
  const id = opened, mine = session;
  if (!id || !mine) return;
  const load = async (list, path, row, none) => {
    try {
      const page = await get(path, mine);
      if (opened === id) fill(list, page.items, row, none);
    } catch (error) {
      if (opened === id && !mine.signal.aborted) fill(list, [], row, error.message);
    }
  };
  await Promise.all([
    load("attributes", "/v1/devices/" + id + "/attributes?limit=500", attributeRow, "It has reported no attribute yet."),
    load("queue", "/v1/devices/" + id + "/queue", waitingRow),
    load("audit", "/v1/audit?limit=8&device=" + id, auditRow),
  ]);
  if (opened === id) { clearTimeout(timer); timer = setTimeout(refreshDevice, REFRESH); }
}
const pathOf = part => [part.resource, part.index, part.area, part.name].join("/");
function waitingRow(operation) {
  const row = make("li", "row"), cancel = make("button", "push", "Cancel"), input = operation.input;
  cancel.type = "button";
  cancel.onclick = () => cancelWaiting(cancel, operation.operation_id);
  row.append(make("span", "", pathOf(operation)));
  if (input !== undefined) row.append(make("code", "", shorten(JSON.stringify(input), 80)));
  const until = make("span", "soft small", "until ");
  until.append(moment(operation.expires));
  row.append(until, cancel);
  return row;
}
async function cancelWaiting(button, operation) {
  button.disabled = true;
  const mine = session;
  try { await ask("/v1/devices/" + opened + "/queue/" + operation, mine, { method: "DELETE" }); }
  catch (error) { if (!mine.signal.aborted) tell(false, said(error)); }
  refreshDevice();
}
function auditRow(done) {
  const row = make("li", "row small"), { detail } = done, isAt = detail.resource !== undefined;
  const rest = Object.entries(detail).filter(([key, value]) => value !== null && !(isAt && ["resource", "index", "area", "name"].includes(key)));
  const words = rest.map(([key, value]) => key.replaceAll("_", " ") + " " + (typeof value === "string" ? value : JSON.stringify(value)));
  if (isAt) words.unshift(pathOf(detail));
  row.append(moment(done.time, "soft"), make("span", "name", done.action), make("span", "soft", done.actor));
  if (!done.ok) row.append(make("span", "badge", "failed"));
  row.append(make("span", "soft", shorten(words.join(" · "), 160)));
  return row;
}
function attributeRow(attribute) {
  const row = make("li"), top = make("div", "row"), { reported, desired } = attribute;
  const path = pathOf(attribute);
  const name = make("button", "link", path);
  name.type = "button";
  name.title = "Write this one";
  name.onclick = () => { $("part").value = path; $("given").value = JSON.stringify((reported || desired).value); $("given").focus(); };
  top.append(name, make("code", "push", shorten(reported ? JSON.stringify(reported.value) : "—", 120)));
  row.append(top);
  const more = make("div", "soft small");
  if (reported) more.append("reported ", moment(reported.time));
  if (desired && desired.outcome !== "applied") {
    more.append(reported ? " · " : "", make("span", "badge", desired.outcome), " ",
      make("code", "", shorten(JSON.stringify(desired.value), 80)));
    if (desired.message) more.append(" " + desired.message);
    if (desired.outcome === "pending" && desired.expires) more.append(" until ", moment(desired.expires));
  }
  row.append(more);
  return row;
}

function tell(good, text) {
  $("outcome").hidden = false;
  $("outcome").className = good ? "good" : "bad";
  $("outcome").textContent = text;
}
const said = error => error instanceof TypeError ? "The platform does not answer." : error.message;
async function send(method, kind, body) {
  const levels = $("part").value.trim().replace(/^\//, "").split("/");
  const path = levels.length === 2 ? ["global", "0", ...levels] : levels;
  if (path.length !== 4 || path.includes("")) return tell(false, "Name it as resource/index/area/name, or area/name.");
  const id = opened, mine = session;
  tell(true, "…");
  for (const button of ["set", "invoke"]) $(button).disabled = true;
  try {
    const answer = await ask(["/v1/devices", id, kind, ...path.map(encodeURIComponent)].join("/"), mine, {
      method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
    });
    const told = await answer.json();
    if (opened !== id) return;
    const { outcome, code, message, output } = kind === "operations" ? told : told.desired;
    const words = [outcome.replaceAll("_", " "), code !== undefined && "code " + code, message,
      output !== undefined && shorten(JSON.stringify(output), 300)];
    tell(outcome === "done" || outcome === "applied" || outcome === "pending", words.filter(Boolean).join(" · "));
    refreshDevice();
  } catch (error) {
    if (!mine.signal.aborted && opened === id) tell(false, said(error));
  } finally {
    for (const button of ["set", "invoke"]) $(button).disabled = false;
  }
}
function given() {
  const text = $("given").value.trim();
  try { return text === "" ? undefined : JSON.parse(text); } catch { tell(false, "That is not JSON. A text is written as \"text\"."); return null; }
}
function setGiven() {
  const value = given();
  if (value === undefined) tell(false, "Write the value, as JSON.");
  else if (value !== null || $("given").value.trim() === "null") send("PUT", "attributes", { value });
}
function invokeGiven() {
  const input = given();
  if (input !== null || $("given").value.trim() === "null") send("POST", "operations", { input });
}
$("set").onclick = setGiven;
$("invoke").onclick = invokeGiven;
$("close").onclick = closeDevice;
