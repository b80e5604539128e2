// Starts Swagger UI over this server's own OpenAPI document.
const { openapi } = document.currentScript.dataset;
window.ui = SwaggerUIBundle({
  url: openapi,
  domNode: document.getElementById("swagger-ui"),
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: -1,
  docExpansion: "list",
  filter: true,
  persistAuthorization: true,
  tryItOutEnabled: true,
  syntaxHighlight: { theme: "nord" },
  validatorUrl: null,
});
