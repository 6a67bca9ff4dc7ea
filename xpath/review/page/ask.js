// Questions in words: what was read in them, then the objects in view.
"use strict";

const STATUS = { present: "looked for", uncertain: "uncertain: looked for", absent: "denied: not looked for", historical: "of the past: not looked for", excluded: "left out: not looked for" };
const question = { reading: null, objects: [], lit: null, counts: {}, doubted: [], number: 0 };

const sent = (address, body) => ask(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

function startAsking(regions) {
  byId("region").replaceChildren(...regions.map((name) => make("option", { value: name, textContent: name })), make("option", { value: "", textContent: "as the text says" }));
  byId("ask").addEventListener("submit", (event) => { event.preventDefault(); readQuestion().catch((error) => notice(error.message)); });
  byId("question").addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); byId("read").click(); } });
  byId("look").addEventListener("click", () => look());
  byId("clear").addEventListener("click", () => { forgetAnswer(); byId("reading").hidden = true; });
}

function forgetAnswer() {
  question.number += 1;
  Object.assign(question, { objects: [], lit: null, counts: {}, doubted: [] });
  viewer.answers = [];
  viewer.frame = null;
  byId("looking").textContent = byId("looking").className = "";
  byId("look").disabled = !(question.reading && question.reading.asked.length);
  if (question.reading) showReading();
  viewer.draw();
}

async function readQuestion() {
  const text = byId("question").value;
  if (!text.trim()) return;
  question.reading = await sent("api/reading", { text, region: byId("region").value });
  notice("");
  forgetAnswer();
  byId("reading").hidden = false;
}

function light(labels) {
  const same = question.lit && question.lit.join() === labels.join();
  question.lit = same ? null : labels;
  showReading();
  showAnswer();
}

function showReading() {
  const { words, asked, unknown, ambiguous } = question.reading;
  const pressed = (labels) => String(Boolean(question.lit) && labels.some((label) => question.lit.includes(label)));
  const colours = new Map(asked.map((one) => [one.label, one.colour]));
  byId("reading-words").replaceChildren(...words.map((word) => {
    if (!word.labels.length) return document.createTextNode(word.text);
    const button = make("button", { type: "button", className: `word ${word.status}`, textContent: word.text, title: `${word.labels.join(", ")} (${STATUS[word.status]})` });
    button.style.setProperty("--c", colours.get(word.labels[0]) || "#999");
    button.setAttribute("aria-pressed", pressed(word.labels));
    button.addEventListener("click", () => light(word.labels));
    return button;
  }));
  const denied = words.filter((word) => word.labels.length && !["present", "uncertain"].includes(word.status));
  byId("reading-labels").replaceChildren(
    ...asked.map((one) => {
      const button = make("button", { type: "button", className: "word", textContent: one.name, title: one.label });
      button.style.setProperty("--c", one.colour);
      button.setAttribute("aria-pressed", pressed([one.label]));
      button.addEventListener("click", () => light([one.label]));
      const count = question.counts[one.label];
      const doubt = words.some((word) => word.status === "uncertain" && word.labels.includes(one.label)) ? " uncertain in the text" : "";
      return make("li", {}, button, make("span", { textContent: `${count === undefined ? "" : ` ${count} ${count === 1 ? "object" : "objects"}`}${doubt}` }), question.doubted.includes(one.label) ? make("small", { textContent: " not there, says the presence test" }) : null, one.guess ? make("small", { textContent: ` a guess: the weights never learnt it${one.nearest.length ? `, the nearest is ${one.nearest.join(" or ")}` : ""}` }) : null);
    }),
    ...denied.map((word) => make("li", { className: "denied" }, make("span", { className: `word ${word.status}`, textContent: word.text }), ` ${STATUS[word.status]}`)));
  const rest = [];
  if (!asked.length) rest.push("Nothing to look for.");
  if (unknown.length) rest.push(`Not understood: ${unknown.join(", ")}.`);
  if (ambiguous.length) rest.push(`Choose a region for: ${ambiguous.map((labels) => labels.join(" or ")).join("; ")}.`);
  byId("reading-rest").textContent = rest.join(" ");
}

function showAnswer() {
  const lit = question.lit;
  const colours = new Map(question.reading.asked.map((one) => [one.label, one.colour]));
  viewer.answers = question.objects.filter((one) => !lit || lit.includes(one.label))
    .map((one) => ({ rings: one.rings, colour: colours.get(one.label), width: lit ? 3 : 2 }));
  viewer.draw();
}

async function look() {
  const number = ++question.number, button = byId("look");
  const [x, y] = viewer.toSlide(0, 0), [right, bottom] = viewer.toSlide(viewer.canvas.clientWidth, viewer.canvas.clientHeight);
  const labels = question.reading.asked.map((one) => one.label);
  button.disabled = true;
  byId("looking").className = "busy";
  byId("looking").textContent = `Looking for ${labels.length === 1 ? "one label" : `${labels.length} labels`} in the view…`;
  try {
    const answer = await sent(`api/slide/${slidePath(state.slide.id)}/objects`, { labels, x, y, width: right - x, height: bottom - y });
    if (number !== question.number) return;
    Object.assign(question, { objects: answer.objects, counts: answer.counts, doubted: answer.doubted, lit: null });
    viewer.frame = answer.box;
    const total = Object.values(answer.counts).reduce((sum, count) => sum + count, 0);
    const um = state.slide.mpp ? ` (${Math.round(answer.box[2] * state.slide.mpp)} × ${Math.round(answer.box[3] * state.slide.mpp)} µm)` : "";
    byId("looking").textContent = `${total} ${total === 1 ? "object" : "objects"} in the dashed frame${um}${answer.shown < total ? `, the ${answer.shown} largest are drawn` : ""}. Zoom in and ask again to see elsewhere. Click a word to see its objects alone.`;
    showReading();
    showAnswer();
  } catch (error) {
    if (number === question.number) byId("looking").textContent = `Not found: ${error.message}`;
  } finally {
    if (number === question.number) { byId("looking").className = ""; button.disabled = false; }
  }
}
