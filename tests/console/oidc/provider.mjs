/**
 * An OpenID provider that is not ours, with its own sign-in and consent pages: `node provider.mjs CONSOLE_ORIGIN`. Prints its
 * issuer.
 *
 * Its scopes decide the audience of the access token, as at Microsoft Entra ID: `cafe` is ArtCafe's, `mail` that of another API.
 * With neither, the token is an opaque one for the provider's own userinfo endpoint.
 */

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";

import { Provider } from "oidc-provider";

const [consoleOrigin] = process.argv.slice(2);
const AUDIENCES = { cafe: "https://cafe.example.com", mail: "https://mail.example.com" };

function resourceOf(scope = "") {
	return scope.split(" ").flatMap((each) => AUDIENCES[each] ?? []);
}

const server = createServer();
server.listen(0, "127.0.0.1");
await once(server, "listening");
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
	clients: [
		{
			client_id: "console",
			redirect_uris: [`${consoleOrigin}/console`],
			grant_types: ["authorization_code", "refresh_token"],
			response_types: ["code"],
			token_endpoint_auth_method: "none",
		},
	],
	clientBasedCORS: (_ctx, origin) => origin === consoleOrigin,
	// ArtCafe reads the address in the ID token. OpenID Connect Core 1.0, section 5.4, has it at the userinfo endpoint only.
	conformIdTokenClaims: false,
	claims: { openid: ["sub"], email: ["email", "email_verified"] },
	findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true }) }),
	features: {
		resourceIndicators: {
			defaultResource: (ctx, _client, oneOf) => oneOf ?? resourceOf(ctx.oidc.params.scope),
			getResourceServerInfo: (_ctx, audience) => ({
				scope: Object.keys(AUDIENCES).find((each) => AUDIENCES[each] === audience),
				audience,
				accessTokenFormat: "jwt",
				jwt: { sign: { alg: "RS256" } },
			}),
			useGrantedResource: () => true,
		},
	},
	// By itself it gives refresh tokens for `offline_access` only, and this only after a consent page in each sign-in.
	issueRefreshToken: (_ctx, client) => client.grantTypeAllowed("refresh_token"),
	cookies: { keys: [randomUUID()] },
	jwks: { keys: [{ ...generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" }), use: "sig", alg: "RS256" }] },
	// An ID token that lasts longer is valid in a browser whose clock a test has set ahead.
	ttl: { AccessToken: 3600, IdToken: 4 * 3600, RefreshToken: 86_400, Session: 86_400, Grant: 86_400, Interaction: 3600 },
});
server.on("request", provider.callback());
console.log(issuer);
