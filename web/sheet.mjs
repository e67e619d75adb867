import { chromium } from "playwright-core"; import fs from "node:fs";
const [out,w,...names]=process.argv.slice(2);
const b=await chromium.launch({executablePath:"/usr/bin/chromium",args:["--no-sandbox","--disable-gpu"]});
const p=await b.newPage({viewport:{width:1800,height:100}});
const img=n=>`<img style="width:${w}px;margin:4px;border:1px solid #888" src="data:image/png;base64,${fs.readFileSync(n).toString("base64")}">`;
await p.setContent(`<body style="margin:0">${names.map(img).join("")}</body>`); await p.waitForTimeout(300);
await p.screenshot({path:out,fullPage:true}); await b.close();
