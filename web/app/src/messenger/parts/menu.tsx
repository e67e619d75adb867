import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

export interface Item {
  label: string;
  icon?: ComponentChildren;
  bad?: boolean;
  /** One of several of which one counts: whether this one does. */
  on?: boolean;
  run(): void;
}

interface Menu {
  x: number;
  y: number;
  label: string;
  items: Item[];
  /** Above the items. */
  head?: ComponentChildren;
  /** Gets the focus back. */
  from: Element | null;
}

const menu = signal<Menu | undefined>(undefined);

/** Opens a menu where somebody pointed, or below what he pressed by keyboard. */
export function openMenu(event: MouseEvent | KeyboardEvent, label: string, items: Item[], head?: ComponentChildren): void {
  event.preventDefault();
  event.stopPropagation();
  const target = event.currentTarget as Element;
  const box = target.getBoundingClientRect();
  const pointed = event instanceof MouseEvent && event.type === "contextmenu" && (event.clientX !== 0 || event.clientY !== 0) && event.button >= 0;
  menu.value = { x: pointed ? event.clientX : box.left, y: pointed ? event.clientY : box.bottom + 4, label, items, head, from: document.activeElement };
}

export function closeMenu(): void {
  const from = menu.value?.from;
  menu.value = undefined;
  if (from instanceof HTMLElement && from.isConnected) from.focus({ preventScroll: true });
}

/** Shows the one menu that is open, if one is. */
export function MenuHost() {
  const open = menu.value;
  const box = useRef<HTMLDivElement>(null);

  useLayoutEffect(() => {
    const element = box.current;
    if (!open || !element) return;
    const { width, height } = element.getBoundingClientRect();
    // Through the object model, not as an attribute: the page's policy forbids the latter.
    element.style.left = `${Math.max(8, Math.min(open.x, innerWidth - width - 8))}px`;
    element.style.top = `${Math.max(8, open.y + height > innerHeight - 8 ? Math.max(8, open.y - height - 8) : open.y)}px`;
    element.querySelector<HTMLElement>("[role^=menuitem]")?.focus();
  }, [open]);

  if (!open) return null;

  function onKeyDown(event: KeyboardEvent) {
    const items = [...(box.current?.querySelectorAll<HTMLElement>("[role^=menuitem]") ?? [])];
    const at = items.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowLeft: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (event.key === "Escape" || event.key === "Tab") closeMenu();
    else if (to !== undefined) items[(to + items.length) % items.length]?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  return (
    <div
      class="menu-back"
      onPointerDown={(e) => e.target === e.currentTarget && closeMenu()}
      onContextMenu={(e) => {
        e.preventDefault();
        closeMenu();
      }}
    >
      <div ref={box} class="menu" role="menu" aria-label={open.label} onKeyDown={onKeyDown}>
        {open.head}
        {open.items.map((item) => (
          <button
            type="button"
            key={item.label}
            role={item.on === undefined ? "menuitem" : "menuitemradio"}
            aria-checked={item.on}
            tabIndex={-1}
            class={item.bad ? "menu-item bad" : "menu-item"}
            onClick={() => {
              closeMenu();
              item.run();
            }}
          >
            {item.icon}
            {item.label}
          </button>
        ))}
      </div>
    </div>
  );
}
