// Wire the page: the worklist sends the files; the viewer and the report show the selected one.

import { asCsv, asJson, saveText } from "./download.js";
import { byId } from "./element.js";
import { KeyField } from "./key.js";
import { Options } from "./options.js";
import { announcement, writeReport } from "./report.js";
import { listenForTheme } from "./theme.js";
import { Viewer } from "./viewer.js";
import { isOver, Worklist } from "./worklist.js";

/** @typedef {import("./worklist.js").Entry} Entry */

const WIDE = matchMedia("(min-width: 1100px)");
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

const options = new Options();
const viewer = new Viewer();
const worklist = new Worklist({ onSelect, onChange });
const keyField = new KeyField(() => void loadOptions());

/** @param {Entry | null} entry */
function onSelect(entry) {
  void viewer.show(entry);
  showReport();
}

/** @param {Entry} entry */
function onChange(entry) {
  if (isOver(entry)) byId("announcer", HTMLElement).textContent = announcement(entry);
  if (entry.problem?.code === "unauthorized") keyField.ask();
  if (entry !== worklist.selected) return;
  viewer.refresh();
  showReport();
}

function showReport() {
  const entry = worklist.selected;
  const identity = entry?.prediction?.model;
  writeReport(byId("report-body", HTMLElement), entry, identity ? options.describe(identity) : null);
  offerAgain();
}

/** Offer to read a file again, unless the request and so the answer would be the same. */
function offerAgain() {
  const entry = worklist.selected;
  const isSame = JSON.stringify(entry?.request) === JSON.stringify(options.request);
  const button = byId("again", HTMLButtonElement);
  button.hidden = !entry || !isOver(entry) || (isSame && !entry.problem);
  button.textContent = isSame ? "Read again" : "Read again with these options";
}

/** Read what is served. If the service requires an API key, ask for it. */
async function loadOptions() {
  const problem = await options.load();
  if (problem?.code === "unauthorized") keyField.ask();
  showReport();
}

/** @param {Iterable<File>} files */
async function take(files) {
  const chosen = [...files];
  if (!chosen.length) return;
  if (!options.isLoaded) await loadOptions();
  worklist.add(chosen, options.request);
  if (!WIDE.matches) byId("viewport", HTMLElement).scrollIntoView({ behavior: STILL.matches ? "auto" : "smooth", block: "start" });
}

/** Read one of the service's own samples. @param {string} name */
async function takeSample(name) {
  const response = await fetch(name).catch(() => null);
  if (response?.ok) await take([new File([await response.blob()], name)]);
  else byId("announcer", HTMLElement).textContent = "The sample could not be loaded: the service did not answer.";
}

function listenForFiles() {
  const input = byId("files", HTMLInputElement);
  byId("choose", HTMLButtonElement).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    void take([...(input.files ?? [])]);
    input.value = ""; // so that the same file can be chosen again
  });
  for (const button of document.querySelectorAll("[data-sample]")) {
    button.addEventListener("click", () => void takeSample(button.getAttribute("data-sample") ?? ""));
  }
}

/** Take files that are dropped anywhere. Otherwise a browser would leave the page to open them. */
function listenForDrops() {
  const veil = byId("drop-veil", HTMLElement);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    veil.hidden = !event.dataTransfer?.types.includes("Files");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    veil.hidden = true;
    void take([...(event.dataTransfer?.files ?? [])]);
  });
}

function listenForResults() {
  byId("save-csv", HTMLButtonElement).addEventListener("click", () => saveText("cxr-results.csv", "text/csv", asCsv(worklist.entries)));
  byId("save-json", HTMLButtonElement).addEventListener("click", () => saveText("cxr-results.json", "application/json", asJson(worklist.entries)));
  byId("clear", HTMLButtonElement).addEventListener("click", () => worklist.clear());
}

listenForFiles();
listenForDrops();
listenForResults();
listenForTheme();
options.onChange(offerAgain);
byId("again", HTMLButtonElement).addEventListener("click", () => worklist.selected && worklist.again(worklist.selected, options.request));
showReport();
void loadOptions();
