// Who is in the hall, and what the cameras see: an application on types that are generated from the API's own document.
//
//     npm install && npm run generate && npm run build
//     URL=http://127.0.0.1:8080 TOKEN=vst_… node built/hall.js

import createClient from "openapi-fetch";
import type { components, paths } from "./vestibule.js";

type Problem = components["schemas"]["Problem"];

const { URL: baseUrl, TOKEN: token } = process.env;
const api = createClient<paths>({ baseUrl, headers: { authorization: `Bearer ${token}` } });

/** The answer, unless it is a problem: then what is wrong, in words. */
function got<T>(answer: { data?: T; error?: Problem }): T {
  if (answer.data === undefined) throw new Error(`${answer.error?.title}: ${answer.error?.detail}`);
  return answer.data;
}

const online = got(await api.GET("/v1/devices", { params: { query: { presence: "online", order: "serial", limit: 1000 } } }));
console.log(`${online.items.length} online`);
for (const { serial } of online.items) {
  const part = { d: serial, resource: "Camera", index: "0", area: "Image" };
  const wished = got(
    await api.PUT("/v1/devices/{d}/attributes/{resource}/{index}/{area}/{name}", {
      params: { path: { ...part, name: "Brightness" } },
      body: { value: 60 },
    }),
  );
  const end = got(
    await api.POST("/v1/devices/{d}/operations/{resource}/{index}/{area}/{name}", {
      params: { path: { ...part, name: "Snapshot" } },
      body: { input: { quality: 80 }, deadline_ms: 5000 },
    }),
  );
  console.log(`${serial}: brightness ${wished.desired?.outcome}, snapshot ${end.outcome}: ${JSON.stringify(end.output)}`);
}
const events = got(await api.GET("/v1/events", { params: { query: { limit: 3 } } }));
for (const event of events.items) {
  console.log(`${event.received.slice(11, 19)} ${event.device.serial} ${event.area}/${event.name}`);
}
