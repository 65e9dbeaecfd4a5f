// Pictures of files: who can draw them, and how they get into the page and out of its memory.

import { preview } from "./api.js";

/** @typedef {import("./worklist.js").Entry} Entry */

/** How long a file is looked at before the service is asked to draw it: who goes through a list asks for none on the way. */
const SETTLE_MS = 120;

/**
 * Give a picture of a file without its heat map, or null: browsers show some themselves, the service draws others.
 *
 * @param {Entry} entry
 * @param {() => boolean} isWanted whether it is still looked at
 * @returns {Promise<Blob | null>}
 */
export async function pictureOf(entry, isWanted) {
  const painter = await painterOf(entry.file);
  if (painter !== "service") return painter && entry.file;
  if (!entry.preview) await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  if (!isWanted()) return null;
  entry.preview ??= preview(entry.file).catch(() => (entry.preview = null));
  return entry.preview;
}

/**
 * Tell by its content, never by its name, who can draw a file.  Browsers show a PNG of 16 bits as if all of them were used.
 *
 * @param {Blob} file
 * @returns {Promise<"browser" | "service" | null>}
 */
async function painterOf(file) {
  const head = new Uint8Array(await file.slice(0, 132).arrayBuffer().catch(() => new ArrayBuffer(0)));
  const has = (/** @type {number[]} */ magic, from = 0) => magic.every((byte, place) => head[from + place] === byte);
  if (has([0x89, 0x50, 0x4e, 0x47])) return head[24] === 16 ? "service" : "browser";
  if (has([0xff, 0xd8, 0xff])) return "browser";
  return has([0x44, 0x49, 0x43, 0x4d], 128) ? "service" : null;
}

/**
 * Put a picture into an image, and give back what the one before took.
 *
 * @param {HTMLImageElement} image
 * @param {Blob | null} picture
 */
export function setPicture(image, picture) {
  if (image.src) URL.revokeObjectURL(image.src);
  if (picture) image.src = URL.createObjectURL(picture);
  else image.removeAttribute("src");
  image.hidden = !picture;
}
