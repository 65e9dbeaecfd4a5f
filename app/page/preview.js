// The image of a file, without a heat map: drawn by the browser, or by the service's `/preview`.

import { preview } from "./api.js";

/** @typedef {import("./worklist.js").Entry} Entry */

/** Time for which a file must be selected before the service draws it, so that scrolling through a list costs nothing. */
const SETTLE_MS = 120;

/**
 * Return the image of a file without its heat map, or null. Browsers show some formats; the service draws the others.
 *
 * @param {Entry} entry
 * @param {() => boolean} isWanted whether the file is still selected
 * @returns {Promise<Blob | null>}
 */
export async function previewOf(entry, isWanted) {
  const painter = await painterOf(entry.file);
  if (painter !== "service") return painter && entry.file;
  if (!entry.preview) await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  if (!isWanted()) return null;
  entry.preview ??= preview(entry.file).catch(() => (entry.preview = null));
  return entry.preview;
}

/**
 * Return who can draw a file, by its content and never by its name. Browsers show a 16-bit PNG as if all bits were used.
 *
 * @param {Blob} file
 * @returns {Promise<"browser" | "service" | null>}
 */
async function painterOf(file) {
  const head = new Uint8Array(await file.slice(0, 132).arrayBuffer().catch(() => new ArrayBuffer(0)));
  const has = (/** @type {number[]} */ magic, from = 0) => magic.every((byte, index) => head[from + index] === byte);
  if (has([0x89, 0x50, 0x4e, 0x47])) return head[24] === 16 ? "service" : "browser";
  if (has([0xff, 0xd8, 0xff])) return "browser";
  return has([0x44, 0x49, 0x43, 0x4d], 128) ? "service" : null;
}

/**
 * Put an image file into an element, and release the memory of the previous one.
 *
 * @param {HTMLImageElement} image
 * @param {Blob | null} file
 */
export function setImage(image, file) {
  if (image.src) URL.revokeObjectURL(image.src);
  if (file) image.src = URL.createObjectURL(file);
  else image.removeAttribute("src");
  image.hidden = !file;
}
