"use strict";
/* One device, opened from the list: its attributes, with a line to set one or to have an operation carried out. */
const REFRESH = 2000;
let opened = null, timer = null;

function openDevice(device) {
  opened = device.id;
  $("device-name").textContent = device.name || device.serial;
  $("attributes").replaceChildren(make("li", "empty", "Loading…"));
  $("outcome").hidden = true;
  $("detail").hidden = false;
  refreshDevice();
}
function closeDevice() {
  opened = null;
  clearTimeout(timer);
  $("detail").hidden = true;
}
async function refreshDevice() {
  clearTimeout(timer);
  const id = opened, mine = session;
  if (!id || !mine) return;
  try {
    const page = await get("/v1/devices/" + id + "/attributes?limit=500", mine);
    if (opened !== id) return;
    const rows = page.items.map(attributeRow);
    if (!rows.length) rows.push(make("li", "empty", "It has reported no attribute yet."));
    $("attributes").replaceChildren(...rows);
  } catch (error) {
    if (opened === id && !mine.signal.aborted) $("attributes").replaceChildren(make("li", "empty", error.message));
  }
  if (opened === id) timer = setTimeout(refreshDevice, REFRESH);
}
function attributeRow(attribute) {
  const row = make("li"), top = make("div", "row"), { reported, desired } = attribute;
  const path = [attribute.resource, attribute.index, attribute.area, attribute.name].join("/");
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
  }
  row.append(more);
  return row;
}

function tell(good, text) {
  $("outcome").hidden = false;
  $("outcome").className = good ? "good" : "bad";
  $("outcome").textContent = text;
}
async function send(method, kind, body) {
  const levels = $("part").value.trim().replace(/^\//, "").split("/");
  const path = levels.length === 2 ? ["global", "0", ...levels] : levels;
  if (path.length !== 4 || path.includes("")) return tell(false, "Name it as resource/index/area/name, or area/name.");
  const id = opened, mine = session;
  tell(true, "…");
  for (const button of ["set", "invoke"]) $(button).disabled = true;
  try {
    const answer = await fetch(["/v1/devices", id, kind, ...path.map(encodeURIComponent)].join("/"), {
      method, signal: mine.signal, cache: "no-store", body: JSON.stringify(body),
      headers: { Authorization: "Bearer " + token, "Content-Type": "application/json" },
    });
    const said = await answer.json();
    if (opened !== id) return;
    if (!answer.ok) return tell(false, said.detail || said.title);
    const { outcome, code, message, output } = kind === "operations" ? said : said.desired;
    const words = [outcome.replaceAll("_", " "), code !== undefined && "code " + code, message,
      output !== undefined && shorten(JSON.stringify(output), 300)];
    tell(outcome === "done" || outcome === "applied" || outcome === "pending", words.filter(Boolean).join(" · "));
    refreshDevice();
  } catch (error) {
    if (!mine.signal.aborted) tell(false, error instanceof TypeError ? "The platform does not answer." : error.message);
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
