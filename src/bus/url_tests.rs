use super::*;
use datastore_api::ExposeSecret;
use proptest::prelude::*;

fn hosts(url: &str) -> Vec<(String, u16, String, String)> {
    let parts = |b: &Broker| (b.host.clone(), b.port, b.user.clone(), b.password.expose_secret().to_owned());
    parse(url).unwrap().brokers.iter().map(parts).collect()
}

fn host(host: &str, port: u16, user: &str, password: &str) -> (String, u16, String, String) {
    (host.into(), port, user.into(), password.into())
}

#[test]
fn hosts_users_and_ports() {
    assert_eq!(hosts("rabbit://"), [host("localhost", 5672, "guest", "guest")]);
    assert_eq!(hosts("rabbit:///v"), [host("localhost", 5672, "guest", "guest")]);
    assert_eq!(hosts("rabbit://h"), [host("h", 5672, "", "")]);
    assert_eq!(hosts("rabbit://u:p@h:1/"), [host("h", 1, "u", "p")]);
    assert_eq!(hosts("amqp://u@h"), [host("h", 5672, "u", "")]);
    assert_eq!(
        hosts("rabbit://u:p%40%3A%2C@a:1,b,x:y@[::1]:7,[fe80::1]/"),
        [
            host("a", 1, "u", "p@:,"),
            host("b", 5672, "", ""),
            host("::1", 7, "x", "y"),
            host("fe80::1", 5672, "", ""),
        ]
    );
    assert_eq!(hosts("kombu+amqp://u:p:q@x@h/"), [host("h", 5672, "u", "p:q@x")]);
}

#[test]
fn virtual_hosts() {
    for (url, wanted) in [
        ("rabbit://h", "/"),
        ("rabbit://h/", "/"),
        ("rabbit://h//", "/"),
        ("rabbit://h/trove", "trove"),
        ("rabbit://h/%2Ffoo", "/foo"),
        ("rabbit://h//foo", "/foo"),
        ("rabbit://h?a=b", "/"),
        ("rabbit://h/v?a=b", "v"),
    ] {
        assert_eq!(parse(url).unwrap().vhost, wanted, "{url}");
    }
}

#[test]
fn query_options() {
    let url = parse("rabbit://h/?ssl=1&ssl_ca_file=%2Fx+y&a=1&a=2&b=").unwrap();
    let wanted = [("ssl", "1"), ("ssl_ca_file", "/x y"), ("a", "1,2"), ("b", "")];
    assert_eq!(url.options, wanted.map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[test]
fn errors_name_the_part_and_never_the_password() {
    for (url, wanted) in [
        ("h:5672", UrlError::NoDriver),
        ("zmq://u:hush@h", UrlError::Driver("zmq".into())),
        ("rabbit://u:hush@", UrlError::Host(1)),
        ("rabbit://a,,b", UrlError::Host(2)),
        ("rabbit://u:hush@[::1", UrlError::Host(1)),
        ("rabbit://u:hush@[nope]", UrlError::Host(1)),
        ("rabbit://a:1:2", UrlError::Host(1)),
        ("rabbit://u:hush@h:port", UrlError::Port(1)),
        ("rabbit://u:hush@h:70000", UrlError::Port(1)),
        ("rabbit://u:hush@h:0", UrlError::Port(1)),
        ("rabbit://u:hush%ff@h", UrlError::Encoding("a password")),
        ("rabbit://u:hush@h/?a", UrlError::Option(1)),
    ] {
        let error = parse(url).unwrap_err();
        assert_eq!(error, wanted, "{url}");
        assert!(!error.to_string().contains("hush"));
    }
    assert!(!format!("{:?}", parse("rabbit://u:hush@h").unwrap()).contains("hush"));
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in any::<String>()) {
        let _ = parse(&text);
        let _ = parse(&format!("rabbit://{text}"));
    }

    #[test]
    fn encoded_credentials_come_back(user in ".{0,20}", password in ".{0,20}", vhost in ".{1,40}") {
        let code = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let url = format!("rabbit://{}:{}@h:1,h2/{}", code(&user), code(&password), code(&vhost));
        let parsed = parse(&url).unwrap();
        prop_assert_eq!(&parsed.brokers[0].user, &user);
        prop_assert_eq!(parsed.brokers[0].password.expose_secret(), &password);
        prop_assert_eq!(parsed.vhost, vhost);
        prop_assert_eq!(parsed.brokers.len(), 2);
    }
}
