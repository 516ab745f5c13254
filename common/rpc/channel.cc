#include "common/rpc/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const ClientTlsOptions& options, const TlsContents& contents) {
  if (!options.enabled && options.ca_file.empty()) {
    if (!options.certificate_file.empty() || !options.server_name.empty()) {
      return InvalidInput("INVALID_TLS_OPTIONS",
                          "a client certificate or server name needs TLS: give the CA file");
    }
    return grpc::InsecureChannelCredentials();
  }
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = contents.ca;
  ssl.pem_cert_chain = contents.certificate;
  ssl.pem_private_key = contents.key;
  return grpc::SslCredentials(ssl);
}

absl::StatusOr<ChannelTarget> FirstTarget(absl::string_view target,
                                          const std::vector<HostPort>& servers,
                                          const ClientTlsOptions& tls, const ServerLookup& lookup) {
  if (servers.size() < 2) return ChannelTarget{std::string(target), false, {}};
  if ((tls.enabled || !tls.ca_file.empty()) && tls.server_name.empty()) {
    return InvalidInput("INVALID_TARGET",
                        "a list of servers with TLS needs the name in their certificates: give the "
                        "TLS server name");
  }
  std::vector<std::vector<ServerAddress>> addresses;
  for (const HostPort& server : servers) addresses.push_back(lookup(server));
  const std::optional<StaticTarget> found = MakeStaticTarget(addresses);
  if (!found.has_value()) {
    return Unavailable("UNKNOWN_HOST",
                       absl::StrCat("no host of the list of servers \"", target, "\" is known"));
  }
  return ChannelTarget{found->target, found->several, {}};
}

std::shared_ptr<grpc::Channel> ConnectTo(
    const ChannelTarget& target, const ChannelOptions& options,
    const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_time)));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_timeout)));
  // A watch is quiet for long; without this gRPC stops pinging after two pings without data.
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  // Also the time that one connection attempt, TLS handshake included, gets.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS,
                   static_cast<int>(absl::ToInt64Milliseconds(options.max_reconnect_backoff)));
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetMaxReceiveMessageSize(options.max_reply_bytes);
  const bool looked_up = !target.server.host.empty();
  if (!options.tls.server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls.server_name);
  } else if (looked_up) {
    // What gRPC does with a name that it looks up itself.
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, target.server.ToString());
    arguments.SetSslTargetNameOverride(target.server.host);
  }
  if (looked_up || target.several) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (target.several) {
    // Standbys answer NOT_SERVING, and so get no calls.
    arguments.SetServiceConfigJSON(
        R"({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})");
  }
  return grpc::CreateCustomChannel(target.target, credentials, arguments);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(absl::string_view target,
                                                           const ChannelOptions& options) {
  UQ_ASSIGN_OR_RETURN(const TlsContents contents, ReadTlsFiles(options.tls.files()));
  UQ_ASSIGN_OR_RETURN(const auto credentials, MakeChannelCredentials(options.tls, contents));
  UQ_ASSIGN_OR_RETURN(const std::vector<HostPort> servers, ParseServers(target));
  UQ_ASSIGN_OR_RETURN(const ChannelTarget first,
                      FirstTarget(target, servers, options.tls, LookUpServer));
  return ConnectTo(first, options, credentials);
}

void ConfigureServerTransport(const ServerTransportOptions& options, grpc::ServerBuilder* builder) {
  const auto set_ms = [builder](const char* name, absl::Duration value) {
    builder->AddChannelArgument(name, static_cast<int>(absl::ToInt64Milliseconds(value)));
  };
  set_ms(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, options.min_ping_interval);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  set_ms(GRPC_ARG_MAX_CONNECTION_AGE_MS, options.max_connection_age);
  set_ms(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, options.max_connection_age_grace);
  set_ms(GRPC_ARG_MAX_CONNECTION_IDLE_MS, options.max_connection_idle);
  set_ms(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, options.handshake_timeout);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes);
  builder->SetMaxReceiveMessageSize(options.max_request_bytes);
}

}  // namespace uniquanf
