// A connection as cpp-httplib reads and writes it, with bounds that the library does not have: a
// request has a time to arrive whole and a number of bytes, and whoever does not take its answer is
// cut off. Over TLS where a context is given.
//
// Thread safety: used by one thread; Close may be called from any. Ownership: closes its socket.
#ifndef UNIQUANF_SERVER_HTTP_HTTP_CONNECTION_H_
#define UNIQUANF_SERVER_HTTP_HTTP_CONNECTION_H_

#include <httplib.h>
#include <openssl/ssl.h>

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "common/base/listen_socket.h"
#include "server/access/access_policy.h"

namespace uniquanf::server {

struct HttpTimeouts {
  absl::Duration handshake = absl::Seconds(10);
  absl::Duration request = absl::Seconds(10);  // head and body, from the head's first byte
  absl::Duration idle = absl::Seconds(30);     // between requests
  absl::Duration write = absl::Seconds(30);    // of one piece of an answer
};

class HttpConnection final : public httplib::Stream {
 public:
  HttpConnection(UniqueFd fd, const HttpTimeouts& timeouts, std::string peer_host, int peer_port);
  ~HttpConnection() override;

  // False: the handshake failed, or took too long.
  bool StartTls(SSL_CTX* context);
  bool has_tls() const { return ssl_ != nullptr; }
  // Waits for the first byte of a request; false: there will be none.
  bool AwaitRequest();
  // From now on `bytes` may be read, until the request's time is over.
  void BeginRequest(size_t bytes);
  // Reads exactly that many bytes. False: they did not come in time.
  bool ReadBody(size_t size, std::string* body);
  // Whether the peer is gone, or has said that it will send no more.
  bool IsGone();
  // Sends no more, and drops what still comes for a while, so that closing does not reset the
  // connection before the answer has arrived.
  void Linger(absl::Duration time);
  // Reads and writes fail from now on.
  void Close();

  const PeerNames& certificate() const { return certificate_; }
  const std::string& peer_host() const { return peer_host_; }
  std::string peer() const;  // "ipv4:10.0.0.1:4711"

  bool is_readable() const override { return true; }
  bool is_writable() const override { return !failed_; }
  ssize_t read(char* data, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return fd_.get(); }

 private:
  // Waits for what the last operation needs (its result); false: not in time, or broken.
  bool Wait(ssize_t result, bool writing, absl::Duration deadline);
  ssize_t ReadSome(char* data, size_t size, absl::Duration deadline);

  const UniqueFd fd_;
  const HttpTimeouts timeouts_;
  const std::string peer_host_;
  const int peer_port_;
  SSL* ssl_ = nullptr;
  PeerNames certificate_;
  std::string buffer_;
  size_t buffer_at_ = 0;
  size_t bytes_left_ = 0;
  absl::Duration read_deadline_;
  bool failed_ = false;
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_HTTP_CONNECTION_H_
