/** ArtCafe for Node.js and browsers. Signers for key files and ssh-agent are in `artcafe/node`. */

export { Agent } from "./agent.js";
export type { AgentOptions, AskOptions, MessagesOptions, PublishOptions, Subscribed, SubscribeOptions } from "./agent.js";
export { agentToken, Client } from "./client.js";
export type { AgentTokenOptions, ClientOptions } from "./client.js";
export type { AgentState, StateEvent } from "./connection.js";
export { AgentError, ArtcafeError } from "./errors.js";
export type * as frames from "./generated/frames.js";
export type * as rest from "./generated/rest.js";
export { Gap, Message } from "./messages.js";
export type { AnswerOptions, Receipt } from "./messages.js";
export type { RequestOptions } from "./request-parts.js";
export type { Request, RequestHandler } from "./requests.js";
export type { Signer } from "./signer.js";
