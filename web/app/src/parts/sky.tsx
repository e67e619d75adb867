/** The night sky behind the log-in: a comet and a few stars. */
export function Sky() {
  return (
    <svg class="sky" viewBox="0 0 1200 800" preserveAspectRatio="xMidYMid slice" aria-hidden="true" focusable="false">
      <defs>
        <linearGradient id="sky-tail" x1="0" y1="0" x2="1" y2="1">
          <stop offset="0" class="tail-far" />
          <stop offset="1" class="tail-near" />
        </linearGradient>
        <radialGradient id="sky-glow">
          <stop offset="0" class="glow-in" />
          <stop offset="1" class="glow-out" />
        </radialGradient>
      </defs>
      {stars.map(([x, y, r]) => (
        <circle class="star" cx={x} cy={y} r={r} />
      ))}
      <g class="comet">
        <path d="M120 40C420 110 700 190 906 318a22 22 0 1 1-36 24C700 220 400 130 120 40Z" fill="url(#sky-tail)" />
        <circle cx="888" cy="331" r="90" fill="url(#sky-glow)" />
        <circle class="head" cx="888" cy="331" r="15" />
      </g>
    </svg>
  );
}

const stars: [number, number, number][] = [
  [64, 210, 1.6], [150, 520, 1.2], [210, 330, 1], [262, 690, 1.8], [330, 440, 1.2], [395, 60, 1.5], [450, 610, 1], [515, 330, 1.3],
  [560, 735, 1.5], [640, 90, 1.1], [690, 520, 1.2], [742, 660, 1], [800, 130, 1.7], [860, 560, 1.2], [940, 90, 1], [985, 470, 1.5],
  [1010, 705, 1.2], [1060, 210, 1.8], [1105, 580, 1], [1150, 90, 1.3], [1165, 400, 1.2], [40, 700, 1.1], [300, 170, 1],
];
