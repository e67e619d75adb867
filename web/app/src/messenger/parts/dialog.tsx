import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { t } from "../../i18n/index.ts";
import { Close } from "../../parts/icons.tsx";
import { DialogId, dialogs, openDialog, run, useClose } from "../ui.ts";

interface Props {
  title: string;
  children: ComponentChildren;
  /** At the bottom. */
  foot?: ComponentChildren;
  onSubmit?: () => void;
  narrow?: boolean;
}

/** A dialog of the browser's own: it holds the focus and gives it back. */
export function Dialog({ title, children, foot, onSubmit, narrow }: Props) {
  const close = useClose();
  const ref = useRef<HTMLDialogElement>(null);
  // In the rendering itself, not after the next paint: by then somebody may type somewhere, and would lose the focus to what had it before.
  useLayoutEffect(() => {
    const dialog = ref.current;
    const before = document.activeElement;
    dialog?.showModal();
    dialog?.querySelector<HTMLElement>("[data-first]")?.focus();
    return () => {
      dialog?.close();
      // A dialog that is taken out of the page gives the focus to nobody.
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
    };
  }, []);
  return (
    <dialog
      ref={ref}
      class={narrow ? "dialog narrow" : "dialog"}
      aria-label={title}
      onCancel={(e) => {
        e.preventDefault();
        close();
      }}
      onPointerDown={(e) => e.target === e.currentTarget && close()}
    >
      <form
        class="dialog-body"
        onSubmit={(e) => {
          e.preventDefault();
          onSubmit?.();
        }}
      >
        <header class="dialog-head">
          <h2>{title}</h2>
          <button type="button" class="icon-button" aria-label={t("close")} onClick={close}>
            <Close />
          </button>
        </header>
        {children}
        {foot && <footer class="dialog-foot">{foot}</footer>}
      </form>
    </dialog>
  );
}

export function Dialogs() {
  return (
    <>
      {dialogs.value.map(({ id, view: View }) => (
        <DialogId.Provider key={id} value={id}>
          <View />
        </DialogId.Provider>
      ))}
    </>
  );
}

/** Asks before something is done that can't be undone. */
export function confirm(question: string, text: string, label: string, action: () => Promise<unknown> | void, bad = true): void {
  openDialog(() => <Question {...{ question, text, label, action, bad }} />);
}

function Question({ question, text, label, action, bad }: { question: string; text: string; label: string; action: () => Promise<unknown> | void; bad: boolean }) {
  const close = useClose();
  return (
    <Dialog
      narrow
      title={question}
      onSubmit={() => {
        close();
        const doing = action();
        if (doing) void run(doing);
      }}
      foot={
        <>
          <button type="button" class="secondary" data-first onClick={close}>
            {t("cancel")}
          </button>
          <button type="submit" class={bad ? "primary danger" : "primary"}>
            {label}
          </button>
        </>
      }
    >
      <p class="dialog-text">{text}</p>
    </Dialog>
  );
}
