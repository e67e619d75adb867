import type { Playground } from "../playground.ts";
import { theme, toggleTheme } from "../../theme.ts";
import { Avatar } from "../../parts/avatar.tsx";
import { Leave, Logo, Moon, Sun } from "../../parts/icons.tsx";
import { Status } from "./status.tsx";

export function Header({ playground, onLeave }: { playground: Playground; onLeave(): void }) {
  const uid = playground.uid.value;
  const dark = theme.value === "dark";
  return (
    <header class="top">
      <Logo />
      <span class="brand">Halley</span>
      <Status playground={playground} />
      <span class="grow" />
      {uid && (
        <span class="me">
          <Avatar name={uid} small />
          <span class="me-name">{uid}</span>
        </span>
      )}
      <button class="icon-button" type="button" aria-label={dark ? "Light colours" : "Dark colours"} title={dark ? "Light colours" : "Dark colours"} onClick={toggleTheme}>
        {dark ? <Sun /> : <Moon />}
      </button>
      <button class="icon-button" type="button" aria-label="Log out" title="Log out" onClick={onLeave}>
        <Leave />
      </button>
    </header>
  );
}
