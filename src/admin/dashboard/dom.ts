/** The few lines of DOM building the page needs. Text is always text: nothing here parses HTML. */

type Child = Node | string | null;

/** An element with properties, `data-*` and `aria-*` attributes, and children. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string | number | boolean | undefined>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

/** A button that does `act`, which gets the button. */
export function button(
  label: string,
  act: (button: HTMLButtonElement) => unknown,
  attributes: Readonly<Record<string, string>> = {},
): HTMLButtonElement {
  const element = h('button', { type: 'button', ...attributes }, label);
  element.addEventListener('click', () => void act(element));
  return element;
}

export const closeButton = (label: string, close: () => void): HTMLButtonElement =>
  button('✕', close, { class: 'quiet', 'aria-label': label });

export const cell = (name: string, ...children: (Node | string)[]): HTMLTableCellElement =>
  h('td', { role: 'cell', class: `cell-${name}` }, ...children);

/** What is typed there, in lower case. */
export const wordsOf = (search: HTMLInputElement): readonly string[] =>
  search.value.toLowerCase().split(/\s+/).filter(Boolean);

/** Less important words. */
export const sub = (words: string): HTMLElement => h('span', { class: 'sub' }, words);

/** Words behind a dot, in the colour that a `data-` attribute here or further out stands for. */
export const dotted = (words: string, attributes: Readonly<Record<string, string>> = {}): HTMLElement =>
  h('span', { class: 'status', ...attributes }, h('span', { class: 'dot', 'aria-hidden': 'true' }), words);

/** The element with this id; throws where the page lacks it. */
export function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`no element ${id}`);
  return element as E;
}

/** Sets text only where it differs, so that selections and assistive technology are left in peace. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute only where it differs; undefined removes it. */
export function setAttribute(element: Element, name: string, value: string | undefined): void {
  if (value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Makes `parent` hold exactly `wanted`, in order, without moving nodes that may stay: focus survives. */
export function setChildren(parent: Element, wanted: readonly Element[]): void {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const element of wanted) {
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
  }
}
