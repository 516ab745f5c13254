// Certificates for tests of TLS: an authority made on the spot, and what it signs.
//
// Thread safety: none. Errors: aborts the test.
#ifndef UNIQUANF_TESTS_SUPPORT_TLS_CERTIFICATES_H_
#define UNIQUANF_TESTS_SUPPORT_TLS_CERTIFICATES_H_

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

namespace uniquanf {

// Paths of PEM files.
struct TlsFiles {
  std::string certificate;
  std::string key;
};

class TlsAuthority {
 public:
  // `directory` must exist; files are named after `name` and what is issued.
  TlsAuthority(const std::string& directory, const std::string& name);

  const std::string& certificate_file() const { return certificate_file_; }
  // For a server at 127.0.0.1 or localhost and for any client; valid from an hour ago for a day.
  TlsFiles Issue(const std::string& name) const;
  // The same for who has `uri` as the name besides (a SPIFFE ID).
  TlsFiles IssueFor(const std::string& name, const std::string& uri) const;
  // The same, but its time is over.
  TlsFiles IssueExpired(const std::string& name) const;

 private:
  using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
  using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

  TlsFiles Issue(const std::string& name, int64_t not_after_s,
                 const std::string& more_names = "") const;

  const std::string directory_;
  const std::string name_;
  std::string certificate_file_;
  Key key_;
  Certificate certificate_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_SUPPORT_TLS_CERTIFICATES_H_
