/** Uploads of scenes: what was dropped or chosen becomes the fields of a form. */

import { authorization, follow, onUnauthorized, Problem, type Scene } from "./api";

const VIDEO = /\.(mp4|mov|m4v|avi|mkv|webm)$/i;
const ZIP = /\.zip$/i;

export interface NamedFile {
  name: string;
  file: File;
}

export interface Part {
  field: "images" | "video" | "archive";
  file: NamedFile;
}

/** Sorts files into the form's fields: one video, one archive, or photos with whatever lies beside them.
 *
 * Raises an error with one sentence for what cannot be sent together.
 */
export function partsOf(files: NamedFile[]): Part[] {
  const seen = files.filter(({ name }) => !name.split("/").some((part) => part.startsWith(".")));
  if (!seen.length) throw new Error("There are no files in it; choose photos, a folder, a zip or a video.");
  const single = seen.find(({ name }) => VIDEO.test(name) || ZIP.test(name));
  if (!single) return seen.map((file) => ({ field: "images", file }));
  if (seen.length > 1) throw new Error(`${single.name} comes with other files; send one video or zip, or only photos.`);
  return [{ field: ZIP.test(single.name) ? "archive" : "video", file: single }];
}

/** Sends a form; reports the share that has left. */
export function sendScene(parts: Part[], onSent: (share: number) => void, signal: AbortSignal): Promise<Scene> {
  const form = new FormData();
  for (const { field, file } of parts) form.append(field, file.file, file.name);
  return new Promise((resolve, reject) => {
    // fetch() does not report how much of a body has been sent.
    const sender = new XMLHttpRequest();
    sender.open("POST", "/v1/scenes");
    for (const [name, value] of Object.entries(authorization())) sender.setRequestHeader(name, value);
    sender.upload.onprogress = (event) => event.lengthComputable && onSent(event.loaded / event.total);
    sender.onload = () => {
      if (sender.status < 300) return resolve(JSON.parse(sender.responseText) as Scene);
      if (sender.status === 401) onUnauthorized();
      reject(problemIn(sender));
    };
    sender.onerror = () => reject(new Problem(0, "The upload was interrupted; the server may have refused its size."));
    sender.onabort = () => reject(new Problem(0, "The upload was cancelled."));
    signal.addEventListener("abort", () => sender.abort());
    sender.send(form);
  });
}

function problemIn(sender: XMLHttpRequest): Problem {
  try {
    const { detail } = JSON.parse(sender.responseText) as { detail?: string };
    if (detail) return new Problem(sender.status, detail);
  } catch {
    // Not a problem document.
  }
  return new Problem(sender.status, `The server answered with status ${sender.status}.`);
}

/** Follows the search for a scene's cameras until it ends. */
export async function followPosing(id: string, onScene: (scene: Scene) => void, signal: AbortSignal): Promise<void> {
  await follow(`/v1/scenes/${id}/events`, {
    signal,
    onEvent: (event) => onScene(JSON.parse(event.data) as Scene),
    isLast: (event) => event.event !== "posing",
  });
}

/** All files of a drop, those in folders included, with their paths. */
export async function droppedFiles(transfer: DataTransfer): Promise<NamedFile[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (!entries.length) return [...transfer.files].map((file) => ({ name: file.name, file }));
  return (await Promise.all(entries.map((entry) => filesIn(entry, "")))).flat();
}

async function filesIn(entry: FileSystemEntry, folder: string): Promise<NamedFile[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    return [{ name: folder + entry.name, file }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const files: NamedFile[] = [];
  for (;;) {
    // A reader gives a hundred entries at a time.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return files;
    for (const each of some) files.push(...(await filesIn(each, `${folder}${entry.name}/`)));
  }
}
