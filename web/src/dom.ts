/** Small helpers for the page's elements. */

type Child = Node | string | null;
type Attributes = Record<string, string | number | boolean | ((event: never) => void)>;

/** Creates an element; functions become listeners, true an empty attribute, false none. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value as EventListener);
    else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child): child is Node | string => child !== null));
  return element;
}

/** Finds an element of index.html by its id. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element as T;
}

export function debounced<A extends unknown[]>(ms: number, call: (...args: A) => void): (...args: A) => void {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = window.setTimeout(() => call(...args), ms);
  };
}

/** Says something to screen readers, and shows it for a while. */
export function announce(text: string, kind: "info" | "error" = "info"): void {
  const note = h("div", { class: `toast ${kind}`, role: kind === "error" ? "alert" : "status" }, text);
  note.append(h("button", { class: "toast-close", "aria-label": "Dismiss", click: () => note.remove() }, "×"));
  byId("toasts").append(note);
  window.setTimeout(() => note.remove(), kind === "error" ? 12_000 : 5_000);
}

/** Shows an error in words; of a missing API key, the dialog does. */
export function reportError(error: unknown): void {
  if ((error as { status?: number }).status !== 401) announce(error instanceof Error ? error.message : String(error), "error");
}

/** Has a file saved under a name. */
export function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  window.setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
