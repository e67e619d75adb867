/** The night sky behind the log-in: a comet and a few stars. */
export function Sky() {
  return (
    <svg class="sky" viewBox="0 0 1200 800" preserveAspectRatio="xMidYMid slice" aria-hidden="true" focusable="false">
      <defs>
        <linearGradient id="sky-dust" gradientUnits="userSpaceOnUse" x1="180" y1="20" x2="900" y2="320">
          <stop offset="0" class="dust-far" />
          <stop offset="1" class="dust-near" />
        </linearGradient>
        <linearGradient id="sky-gas" gradientUnits="userSpaceOnUse" x1="330" y1="20" x2="900" y2="320">
          <stop offset="0" class="gas-far" />
          <stop offset="1" class="gas-near" />
        </linearGradient>
        <radialGradient id="sky-glow">
          <stop offset="0" class="glow-in" />
          <stop offset="0.3" class="glow-mid" />
          <stop offset="1" class="glow-out" />
        </radialGradient>
      </defs>
      {stars.map(([x, y, r]) => (
        <circle class="star" cx={x} cy={y} r={r} />
      ))}
      {/* Two tails, as comets have: dust, broad and bent; gas, narrow and straight away from the sun. */}
      <path d="M150 70C470 90 700 175 907 320a11 11 0 0 1-14 20C690 225 460 130 150 70Z" fill="url(#sky-dust)" />
      <path d="M330 12 905 323a8 8 0 0 1-9 13Z" fill="url(#sky-gas)" />
      <circle cx="900" cy="330" r="130" fill="url(#sky-glow)" />
      <circle class="head" cx="900" cy="330" r="12" />
    </svg>
  );
}

const stars: [number, number, number][] = [
  [64, 210, 1.6], [150, 520, 1.2], [210, 330, 1], [262, 690, 1.8], [330, 440, 1.2], [395, 60, 1.5], [450, 610, 1], [515, 330, 1.3],
  [560, 735, 1.5], [640, 90, 1.1], [690, 520, 1.2], [742, 660, 1], [800, 130, 1.7], [860, 560, 1.2], [940, 90, 1], [985, 470, 1.5],
  [1010, 705, 1.2], [1060, 210, 1.8], [1105, 580, 1], [1150, 90, 1.3], [1165, 400, 1.2], [40, 700, 1.1], [300, 170, 1],
];
